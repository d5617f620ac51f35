// The charts, their controls and the gallery of the report. Names in the data are inserted as text, never as HTML.
const report = JSON.parse(document.getElementById("report-data").textContent);
const views = new Map(); // by stem of the chart
const boxes = () => [...document.querySelectorAll('input[name="run"]')];

function shownRuns() {
  return boxes().length ? boxes().filter((box) => box.checked).map((box) => box.value) : report.runs.map((run) => run.name);
}

function hasSignal(view, name) {
  return name in view.getState({ signals: () => true, data: () => false }).signals;
}

// Charts in a closed <details> have no width, so they are drawn when it is opened.
async function drawCharts() {
  for (const [stem, spec] of Object.entries(report.charts)) {
    const place = document.getElementById(`chart-${stem}`);
    if (!place || place.dataset.drawn || place.closest("details:not([open])")) continue;
    place.dataset.drawn = "";
    if (innerWidth < 640) spec.config.legend.columns = 2;
    const drawn = await window.vegaEmbed(place, spec, { actions: false, renderer: "svg", ast: true, logLevel: 1 });
    views.set(stem, drawn.view);
    // A new chart shows all runs; if it is drawn later, it must hide those that are not selected.
    if (shownRuns().length < report.runs.length && hasSignal(drawn.view, "runs")) await drawn.view.signal("runs", shownRuns()).runAsync();
  }
  document.documentElement.dataset.charts = String(views.size);
}

function showRuns() {
  const runs = shownRuns();
  for (const view of views.values()) {
    if (hasSignal(view, "runs")) view.signal("runs", runs).runAsync();
  }
  drawGallery();
}

// Gallery -------------------------------------------------------------------------------------------------------------

const KINDS = {
  right: "#2e9e5b",
  classification: "#d55e00",
  localisation: "#e69f00",
  both: "#cc4778",
  duplicate: "#56b4e9",
  background: "#e3342f",
  missed: "#c44dff",
};
const SVG = "http://www.w3.org/2000/svg";
const { classes, images } = report.gallery ?? { classes: [], images: [] }; // a page may have none
const sources = images.map((image) => {
  const bytes = Uint8Array.from(atob(image.jpeg), (character) => character.charCodeAt(0));
  return URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" }));
});

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Boxes of a run in an image with at least this score, and missed objects: {label, x, y, w, h, score, kind}.
function outcomes(image, run, lowest) {
  const shown = image.found[run].filter((box) => box[5] >= lowest);
  const found = new Set(shown.map((box) => box[7]));
  const missed = image.objects.filter((object, place) => !object[5] && !found.has(place));
  return [
    ...missed.map((object) => ({ box: object, kind: "missed" })),
    ...shown.map((box) => ({ box, score: box[5], kind: box[6] })).reverse(), // highest score on top
  ].map(({ box: [label, x, y, w, h], score, kind }) => ({ label, x, y, w, h, score, kind }));
}

function rectangle(of, colour, dashed, faded) {
  const rect = document.createElementNS(SVG, "rect");
  for (const [key, value] of [["x", of.x], ["y", of.y], ["width", of.w], ["height", of.h], ["stroke", colour]]) {
    rect.setAttribute(key, value);
  }
  if (dashed) rect.setAttribute("stroke-dasharray", "5 3");
  if (faded) rect.classList.add("faded");
  const title = document.createElementNS(SVG, "title");
  const score = of.score === undefined ? "" : ` ${of.score.toFixed(2)}`;
  title.textContent = `${classes[of.label]}${score}${of.kind ? `: ${of.kind}` : ""}`;
  rect.append(title);
  return rect;
}

function card(image, source, name, rectangles, text) {
  const overlay = document.createElementNS(SVG, "svg");
  overlay.setAttribute("viewBox", `0 0 ${image.width} ${image.height}`);
  overlay.setAttribute("preserveAspectRatio", "none");
  overlay.setAttribute("aria-hidden", "true"); // the text below states the counts
  overlay.append(...rectangles);
  const drawn = element("img", { src: source, alt: `${image.file}: ${name}`, width: image.width, height: image.height });
  const seen = element("div", { class: "seen" }, drawn, overlay);
  return element("figure", {}, seen, element("figcaption", {}, element("strong", {}, name), text));
}

function counted(number, one, many) {
  return `${number} ${number === 1 ? one : many}`;
}

const PART = 6; // images added at a time
let imageCount = PART;

function drawGallery() {
  if (!report.gallery) return;
  const controls = document.getElementById("gallery-controls").elements;
  const label = controls.class.value === "" ? null : Number(controls.class.value);
  const kind = controls.kind.value;
  const lowest = Number(controls.score.value);
  document.getElementById("gallery-score").textContent = lowest.toFixed(2);
  const runs = shownRuns();
  const wanted = (of) => (label === null || of.label === label) && (!kind || of.kind === kind);
  const rows = images
    .map((image, place) => {
      const found = Object.fromEntries(runs.map((run) => [run, outcomes(image, run, lowest)]));
      const all = Object.values(found).flat();
      const hasClass = label === null || image.objects.some((object) => object[0] === label);
      const shown = kind ? all.some(wanted) : hasClass || all.some(wanted);
      const errors = all.filter((of) => of.kind !== "right" && wanted(of)).length;
      return { image, source: sources[place], found, shown, errors };
    })
    .filter((row) => row.shown);
  if (controls.order.value === "worst") rows.sort((a, b) => b.errors - a.errors);
  else rows.sort((a, b) => (a.image.file < b.image.file ? -1 : 1));
  document.getElementById("gallery-count").textContent =
    `${counted(rows.length, "image", "images")} of ${images.length}, ${counted(runs.length, "run", "runs")} side by side.`;
  document.getElementById("gallery-more").hidden = rows.length <= imageCount;
  document.getElementById("images").replaceChildren(...rows.slice(0, imageCount).flatMap(({ image, source, found, errors }) => {
    const objects = image.objects.map(([of, x, y, w, h, ignored]) => ({ label: of, x, y, w, h, kind: ignored ? "ignored" : "" }));
    const truth = objects.map((of) => rectangle(of, "#ffffff", true, label !== null && of.label !== label));
    const cards = runs.map((run) => {
      const rectangles = found[run].map((of) => rectangle(of, KINDS[of.kind], of.kind === "missed", !wanted(of)));
      const number = (test) => found[run].filter(test).length;
      const right = number((of) => of.kind === "right");
      const missed = number((of) => of.kind === "missed");
      return card(image, source, run, rectangles, `${right} right, ${found[run].length - right - missed} wrong, ${missed} missed`);
    });
    const strip = element("div", { class: "strip", tabindex: "0", role: "group", "aria-label": image.file },
      card(image, source, "ground truth", truth, counted(objects.length, "object", "objects")), ...cards);
    return [element("p", { class: "image-name" }, `${image.file}: ${counted(errors, "error", "errors")} in the runs shown`), strip];
  }));
}

// Start ---------------------------------------------------------------------------------------------------------------

function openTarget() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
    target.scrollIntoView();
  }
}

boxes().forEach((box) => box.addEventListener("change", showRuns));
document.querySelectorAll("select[data-chart]").forEach((select) =>
  select.addEventListener("change", () => {
    const view = views.get(select.dataset.chart);
    if (view) view.signal(select.dataset.parameter, select.value).runAsync();
  }));
if (report.gallery) {
  for (const [kind, colour] of Object.entries(KINDS)) {
    const swatch = element("span", { style: `--colour: ${colour}${kind === "missed" ? "; border-style: dashed" : ""}` });
    document.getElementById("key").append(element("li", {}, swatch, kind));
  }
  document.getElementById("gallery-controls").addEventListener("input", drawGallery);
  document.getElementById("gallery-more").addEventListener("click", () => {
    imageCount += PART;
    drawGallery();
  });
}
document.querySelectorAll("details.more").forEach((part) => part.addEventListener("toggle", drawCharts));
window.addEventListener("hashchange", openTarget);
window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => (part.open = true)));
drawGallery();
openTarget();
drawCharts();
