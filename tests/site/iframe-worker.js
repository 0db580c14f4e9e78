// A browser starts no worker from a file. Then the search runs in a frame without a window:
// what it posts reaches this page, and what this page posts reaches it.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      this.onmessage = null;
      this.waiting = [];
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.srcdoc = `<!doctype html><title>search</title><script>
        var self = window;
        window.postMessage = (data) => parent.dispatchEvent(new MessageEvent("fakesys-worker", { data }));
        window.importScripts = (...files) => files.reduce((before, file) => before.then(() =>
          new Promise((done, failed) => {
            const script = document.createElement("script");
            Object.assign(script, { src: file, onload: done, onerror: failed });
            document.head.append(script);
          })), Promise.resolve());
      </` + `script><script src="${new URL(address, location)}"></` + `script>`;
      frame.onload = () => {
        this.target = frame.contentWindow;
        for (const data of this.waiting.splice(0)) this.postMessage(data);
      };
      addEventListener("fakesys-worker", ({ data }) => {
        const message = new MessageEvent("message", { data });
        this.dispatchEvent(message);
        this.onmessage?.(message);
      });
      document.documentElement.append(frame);
    }

    postMessage(data) {
      if (this.target) this.target.dispatchEvent(new MessageEvent("message", { data }));
      else this.waiting.push(data);
    }
  };
}
