// Draws every figure of the page's JSON into the element of its name, in the page's own colours; again when these change
// and when the page says that its figures did. A report carries a copy of this file, since it is opened from disk too.
(() => {
  const source = () => document.getElementById("figures");
  if (!source()) return;
  const plotlyAt = location.protocol === "file:" ? "../plotly.min.js" : document.currentScript.dataset.plotly;

  function draw() {
    const style = getComputedStyle(source().parentElement);
    const css = (name) => style.getPropertyValue(name).trim();
    const axis = { gridcolor: css("--grid"), zerolinecolor: css("--quiet"), linecolor: css("--line"), fixedrange: true, automargin: true };
    for (const [key, figure] of Object.entries(JSON.parse(source().textContent))) {
      const layout = {
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 56, r: 12, t: 36, b: 48 },
        font: { color: css("--text"), family: "system-ui, sans-serif", size: 12 }, hoverlabel: { namelength: -1 },
        ...figure.layout,
      };
      for (const name of ["xaxis", "xaxis2", "yaxis", "yaxis2"]) {
        if (layout[name] || !name.endsWith("2")) layout[name] = { ...axis, ...layout[name] };
      }
      Plotly.react(key, figure.data, layout, { responsive: true, displayModeBar: false });
    }
  }

  const plotly = document.createElement("script");
  plotly.src = plotlyAt;
  plotly.onload = async () => {
    // Plotly measures the page, so this must have its style and its fonts.
    if (document.readyState !== "complete") await new Promise((done) => addEventListener("load", done));
    await document.fonts.ready;
    draw();
    document.addEventListener("figures", draw);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    new MutationObserver(draw).observe(document.documentElement, { attributeFilter: ["class"] });
  };
  plotly.onerror = () => {
    for (const sentence of document.querySelectorAll(".no-figures")) sentence.hidden = false;
  };
  document.head.append(plotly);
})();
