// Fetches an export and says how far it is: a CSV by its lines, of which the server tells the number, a Parquet file by
// its size. Without this script the links download just so.
(() => {
  const place = document.getElementById("export");
  const bar = place.querySelector("progress");
  const said = place.querySelector("[role=status]");
  const LINE_FEED = 10;

  async function download(link) {
    const answer = await fetch(link.href, { credentials: "same-origin" });
    if (!answer.ok || answer.redirected) throw new Error(`the server answered ${answer.status}`);
    const rows = Number(answer.headers.get("Rows-Found"));
    const counts = answer.headers.get("Content-Type").startsWith("text/csv");
    const parts = [];
    let lines = -1, size = 0; // the head is no row
    for (const reader = answer.body.getReader(); ; ) {
      const { done, value } = await reader.read();
      if (done) break;
      parts.push(value);
      size += value.length;
      if (counts) for (const byte of value) lines += byte === LINE_FEED;
      bar.hidden = false;
      if (counts && rows) bar.value = lines / rows;
      else bar.removeAttribute("value");
      const megabytes = `${(size / 1e6).toFixed(1)} MB`;
      said.textContent = counts ? `${lines.toLocaleString("en")} of ${rows.toLocaleString("en")} rows, ${megabytes}` : megabytes;
    }
    const file = document.createElement("a");
    file.href = URL.createObjectURL(new Blob(parts));
    file.download = answer.headers.get("Content-Disposition").match(/filename="(.*)"/)[1];
    file.click();
    URL.revokeObjectURL(file.href);
    bar.hidden = true;
    said.textContent = `${file.download}: ${rows.toLocaleString("en")} rows.`;
  }

  place.addEventListener("click", (event) => {
    const link = event.target.closest("[data-export]");
    if (!link) return;
    event.preventDefault();
    download(link).catch((error) => {
      bar.hidden = true;
      said.textContent = `Not downloaded: ${error.message}. Try again, or narrow the rows by a filter.`;
    });
  });
})();
