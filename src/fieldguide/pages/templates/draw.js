// Draws each chart from its JSON, which no browser runs.
for (const block of document.querySelectorAll("script[type='application/json']")) {
  const figure = JSON.parse(block.textContent);
  const settings = { displaylogo: false, responsive: true };
  Plotly.newPlot(block.dataset.chart, figure.data, figure.layout, settings);
}
