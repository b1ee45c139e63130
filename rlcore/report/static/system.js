"use strict";
// How a run was set up: versions, rewards, changes, and the configuration; of two runs, what differs first.

((report) => {
  const { el } = report;
  const flat = (value, path = "") => {
    if (value === null || typeof value !== "object" || (Array.isArray(value) && value.every((each) => typeof each !== "object")))
      return [[path, value === null || typeof value === "object" ? JSON.stringify(value) : String(value)]];
    return Object.entries(value).flatMap(([key, inner]) => flat(inner, path ? `${path}.${key}` : key));
  };
  const table = (rows, className = "plain") => el("table", { class: className }, el("tbody", {}, rows.map(([name, ...values]) => el("tr", {}, el("th", { scope: "row" }, name), values.map((value) => el("td", {}, value))))));

  const differences = () => {
    if (report.head.runs.length < 2) return null;
    const all = report.head.runs.map((head) => new Map(flat(head.config)));
    const keys = [...new Set(all.flatMap((each) => [...each.keys()]))].filter((key) => new Set(all.map((each) => each.get(key))).size > 1);
    return el("section", { class: "card" }, el("h2", {}, `Settings that differ (${keys.length})`), table([["", ...report.head.runs.map((head) => head.name)], ...keys.map((key) => [key, ...all.map((each) => each.get(key) ?? "–")])]));
  };

  const configuration = (head) => {
    const rows = flat(head.config), body = el("div");
    const search = el("input", { type: "search", placeholder: "Find a setting", "aria-label": "Find a setting", oninput: () => draw() });
    const draw = () => body.replaceChildren(table(rows.filter((row) => row.join(" ").toLowerCase().includes(search.value.toLowerCase()))));
    draw();
    return [search, body];
  };

  report.views.system = {
    title: "System",
    async draw(host) {
      host.append(differences() || "");
      const many = report.head.runs.length > 1;
      host.append(el("div", { class: many ? "columns" : "" }, report.head.runs.map((head, run) => el("section", { class: "card" },
        el("div", { class: "card-head" }, report.runMark(run), el("h2", {}, head.name), report.pill(head.state)),
        table([["folder", head.folder], ["first row", report.time(head.started)], ["last row", report.time(head.state.updated)], ...flat(head.summary.versions || {}), ...flat(head.summary.precision || {}, "precision")]),
        head.changes.length ? [el("h3", {}, "Settings that changed while it was resumed"), table(head.changes.map((each) => [each.key, `step ${each.step}`, `${JSON.stringify(each.before)} → ${JSON.stringify(each.now)}`]))] : null,
        el("h3", {}, "Configuration"), configuration(head)))));
    },
  };
})(window.report);
