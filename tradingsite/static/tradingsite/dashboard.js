// Asks for the page again and puts what is new in place; who is at a control of it stays there, if it is still the same.
(() => {
  const EVERY_MS = 15000;
  const board = () => document.getElementById("dashboard");

  async function refresh() {
    if (document.hidden) return;
    const answer = await fetch(location.href, { credentials: "same-origin" }).catch(() => null);
    const page = answer && answer.ok && !answer.redirected ? new DOMParser().parseFromString(await answer.text(), "text/html") : null;
    const fresh = page && page.getElementById("dashboard");
    document.getElementById("stale").hidden = Boolean(fresh);
    if (!fresh) return;
    const held = board().contains(document.activeElement) ? document.activeElement.outerHTML : null;
    document.getElementById("figures").textContent = page.getElementById("figures").textContent;
    board().replaceWith(fresh);
    [...fresh.querySelectorAll("a, button")].find((each) => each.outerHTML === held)?.focus({ preventScroll: true });
    document.dispatchEvent(new Event("figures"));
  }

  setInterval(refresh, EVERY_MS);
})();
