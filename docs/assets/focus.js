// What scrolls sideways can be reached by keyboard too; the theme wraps tables after this script has run.
new MutationObserver(() => {
  for (const box of document.querySelectorAll(".md-typeset__scrollwrap:not([tabindex])")) box.tabIndex = 0;
}).observe(document.body, { childList: true, subtree: true });
