// A page opened from the disk may not start a worker, which is where Material for MkDocs searches. This stands in for
// one there: it runs the script in a hidden frame. Pages from a server keep their worker.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const { contentWindow, contentDocument } = frame;
      contentDocument.open(); // otherwise Firefox puts another document there later
      contentDocument.write("<title>search</title><body></body>");
      contentDocument.close();
      contentWindow.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      const script = contentDocument.createElement("script");
      script.src = url;
      this.inside = new Promise((ready) => script.addEventListener("load", () => ready(contentWindow)));
      contentDocument.body.append(script);
    }

    async postMessage(data) {
      (await this.inside).dispatchEvent(new MessageEvent("message", { data }));
    }
  };
}
