"use strict";
// What all views share: elements, numbers, and the address of the page.
// Text from models and recordings is hostile input: it becomes text nodes here and nothing else.

window.report = { panels: [], views: {} };

((report) => {
  // Makes an element. A child that is no node becomes a text node; attributes starting with "on" are listeners.
  report.el = (tag, attributes = {}, ...children) => {
    const svg = ["svg", "path", "line", "circle", "rect", "text", "g", "polyline", "title"].includes(tag);
    const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
    return node;
  };

  report.number = (value, digits = 3) => {
    if (value === null || value === undefined || Number.isNaN(value)) return "–";
    if (typeof value !== "number") return String(value);
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(1);
    if (Number.isInteger(value)) return value.toLocaleString("en");
    return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : digits);
  };
  report.percent = (value, sign = false) =>
    value === null || value === undefined ? "–" : `${sign && value > 0 ? "+" : ""}${(100 * value).toFixed(1)}`;
  report.seconds = (value) => {
    if (value === null || value === undefined) return "–";
    if (value < 60) return `${value.toFixed(value < 10 ? 1 : 0)} s`;
    const minutes = Math.round(value / 60);
    if (minutes < 60) return `${minutes} min`;
    return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  };
  report.time = (value) => (value ? new Date(1000 * value).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" }) : "–");
  report.colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  report.runColour = (run) => report.colour(["run-a", "run-b", "run-c", "run-d"][run % 4]);
  report.runMark = (run) => report.el("span", { class: `run-mark run-${"abcd"[run % 4]}`, "aria-hidden": "true" });
  report.share = (metric) => /accuracy|rate|precision|recall|f1|score|truncated|contradictions/.test(metric || "");

  // The address holds what is looked at: #view?key=value, so that it can be sent to someone.
  report.address = () => {
    const [view, query] = location.hash.slice(1).split("?");
    return { view: view || "overview", values: Object.fromEntries(new URLSearchParams(query || "")) };
  };
  report.link = (view, values = {}) => {
    const kept = Object.entries(values).filter(([, value]) => value !== null && value !== undefined && value !== "");
    const query = new URLSearchParams(kept).toString();
    return `#${view}${query ? `?${query}` : ""}`;
  };
  report.go = (view, values) => { location.hash = report.link(view, values); };
})(window.report);
