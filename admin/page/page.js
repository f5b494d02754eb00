// Keeps the page as the gateway is: the gateway sends a part again when it has changed, as a stream. Without this script the
// page is the same, and stands still.
"use strict";
(() => {
  const live = document.getElementById("live");
  const pause = document.getElementById("pause");
  const announce = document.getElementById("announce");
  if (!window.EventSource || !live) return;

  let source = null;
  let again = 0;
  let paused = false;

  const say = (state) => {
    live.className = "quiet " + (state === "live" ? "on" : state);
    live.textContent = live.dataset[state];
  };

  // become makes one element like another and leaves alone what is the same, so that neither the focus nor a selection is lost.
  const become = (to, from) => {
    for (const name of to.getAttributeNames()) if (!from.hasAttribute(name)) to.removeAttribute(name);
    for (const name of from.getAttributeNames()) {
      if (to.getAttribute(name) !== from.getAttribute(name)) to.setAttribute(name, from.getAttribute(name));
    }
    const fresh = [...from.childNodes];
    fresh.forEach((node, i) => {
      const old = to.childNodes[i];
      if (!old) to.append(node);
      else if (old.nodeName !== node.nodeName) old.replaceWith(node);
      else if (node.nodeType === Node.ELEMENT_NODE) become(old, node);
      else if (old.nodeValue !== node.nodeValue) old.nodeValue = node.nodeValue;
    });
    while (to.childNodes.length > fresh.length) to.lastChild.remove();
  };

  const show = (parts) => {
    for (const part of parts) {
      if (part.id === "title") {
        if (document.title !== part.html) announce.textContent = document.title = part.html;
        continue;
      }
      const there = document.getElementById(part.id);
      if (!there || !("part" in there.dataset)) continue;
      const fresh = there.cloneNode(false);
      fresh.append(...new DOMParser().parseFromString(part.html, "text/html").body.childNodes);
      become(there, fresh);
    }
  };

  const stop = () => {
    clearTimeout(again);
    if (source) source.close();
    source = null;
  };
  const start = () => {
    stop();
    if (paused || document.hidden) return;
    source = new EventSource(live.dataset.stream);
    source.onopen = () => say("live");
    source.addEventListener("parts", (event) => show(JSON.parse(event.data)));
    source.addEventListener("full", () => {
      stop();
      say("full");
      again = setTimeout(start, 30000);
    });
    source.onerror = () => {
      say("lost");
      if (source && source.readyState === EventSource.CLOSED) again = setTimeout(start, 3000);
    };
  };

  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? pause.dataset.resume : pause.dataset.pause;
    if (paused) {
      stop();
      say("paused");
    } else {
      start();
    }
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) stop();
    else start();
  });
  start();
})();
