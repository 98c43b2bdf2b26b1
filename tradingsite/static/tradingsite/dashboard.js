// Asks for the page again and puts what is new in place, unless somebody is at a control of it.
(() => {
  const EVERY_MS = 15000;
  const board = () => document.getElementById("dashboard");

  async function refresh() {
    if (document.hidden || board().contains(document.activeElement)) return;
    const answer = await fetch(location.href, { credentials: "same-origin" }).catch(() => null);
    const page = answer && answer.ok && !answer.redirected ? new DOMParser().parseFromString(await answer.text(), "text/html") : null;
    const fresh = page && page.getElementById("dashboard");
    document.getElementById("stale").hidden = Boolean(fresh);
    if (!fresh || board().contains(document.activeElement)) return;
    document.getElementById("figures").textContent = page.getElementById("figures").textContent;
    board().replaceWith(fresh);
    document.dispatchEvent(new Event("figures"));
  }

  setInterval(refresh, EVERY_MS);
})();
