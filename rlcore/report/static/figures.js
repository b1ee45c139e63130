"use strict";
// Figures of an evaluation: a confusion matrix as a table, shares with intervals as marks on a line.

((report) => {
  const { el, percent } = report;

  const matrix = (figure) => {
    const used = figure.columns.map((_, column) => column < figure.rows.length || figure.counts.some((row) => row[column]));
    const columns = figure.columns.map((name, column) => ({ name, column })).filter(({ column }) => used[column]);
    const cell = (row, counts, column) => {
      const total = counts.reduce((sum, count) => sum + count, 0);
      const share = total ? counts[column] / total : 0;
      const told = `${figure.rows[row]} answered as ${figure.columns[column]}: ${counts[column]} of ${total}`;
      return el("td", { class: `${row === column ? "hit" : ""} ${share > 0.55 ? "deep" : ""}`, style: `--share: ${share.toFixed(3)}`, title: told },
        counts[column] ? Math.round(100 * share) : "");
    };
    return el("div", { class: "scroll" }, el("table", { class: "matrix" },
      el("caption", {}, "Share of each row in per cent: rows are right, columns answered."),
      el("thead", {}, el("tr", {}, el("td"), columns.map(({ name }) => el("th", { scope: "col" }, el("span", {}, name))))),
      el("tbody", {}, figure.counts.map((counts, row) => el("tr", {}, el("th", { scope: "row" }, figure.rows[row]), columns.map(({ column }) => cell(row, counts, column)))))));
  };

  const intervals = (figure) => {
    const series = Object.entries(figure.series);
    const marks = (index) => series.map(([name, values], at) => {
      const [value, low, high] = values[index];
      const last = at === series.length - 1;
      return el("div", { class: `range ${last ? "last" : "first"}`, title: `${figure.names[index]}, ${name}: ${percent(value)} % [${percent(low)}, ${percent(high)}]` },
        el("i", { style: `left: ${100 * low}%; width: ${100 * (high - low)}%` }), el("b", { style: `left: ${100 * value}%` }));
    });
    const told = (index) => percent(series.at(-1)[1][index][0]);
    return el("div", { class: "intervals" },
      series.length > 1 ? el("p", { class: "key" }, series.map(([name], at) => el("span", { class: `range-key ${at === series.length - 1 ? "last" : "first"}` }, el("b"), name))) : null,
      el("div", { class: "rows" }, figure.names.map((name, index) => [
        el("span", { class: "name" }, name, el("small", {}, ` (${figure.nums[index]})`)),
        el("div", { class: "track" }, marks(index)), el("span", { class: "value" }, told(index))])),
      el("div", { class: "rows axis", "aria-hidden": "true" }, el("span"), el("div", { class: "ticks" }, [0, 25, 50, 75, 100].map((tick) => el("span", { style: `left: ${tick}%` }, tick))), el("span", {}, "%")),
      figure.note ? el("p", { class: "quiet" }, figure.note) : null);
  };

  report.figure = (figure) => ({ matrix, intervals })[figure.kind](figure);
})(window.report);
