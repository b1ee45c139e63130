"use strict";
// One sample: its recording, what the task draws of it, its scores, its group, the same prompt elsewhere.

((report) => {
  const { el, number } = report;

  report.nameOf = (samples, at) => [samples.split[at], samples.step[at], samples.prompts[samples.prompt[at]].id, samples.sample[at]].join("/");
  report.findSample = (samples, name) => {
    for (let at = 0; at < samples.step.length; at++) if (report.nameOf(samples, at) === name) return at;
    return null;
  };

  const players = (addresses, panelsWait) => addresses.map((address) => {
    const audio = el("audio", { controls: true, preload: "metadata", src: address });
    audio.addEventListener("error", () => audio.replaceWith(el("p", { class: "quiet" }, "The recording cannot be played from here.")));
    panelsWait.push(audio);
    return audio;
  });

  const scores = (samples, at) => {
    const rows = Object.entries(samples.scores[at]).flatMap(([name, score]) => [
      el("tr", {}, el("th", { scope: "row" }, name), el("td", { class: "number" }, score.error === undefined ? number(score.value) : "failed"), el("td", {}, score.error === undefined ? bar(score.value) : el("span", { class: "quiet" }, score.error))),
      ...Object.entries(score.parts || {}).map(([part, value]) => el("tr", { class: "part" }, el("th", { scope: "row" }, part), el("td", { class: "number" }, number(value, 2)), el("td"))),
    ]);
    return el("table", { class: "scores" }, el("tbody", {}, rows));
  };
  const bar = (value) => el("span", { class: "meter", "aria-hidden": "true" }, el("i", { style: `width: ${100 * Math.max(0, Math.min(1, value))}%` }));

  const facts = (samples, at) => {
    const more = samples.more[at];
    const shown = [["reward, mixed", number(more.reward ?? null)], ["advantage", number(more.advantage ?? null)], ["tokens", number(more.tokens ?? null)],
      ["ended by", more.finish_reason ?? "–"], ["policy version", (more.versions || []).map(([version]) => version).join(", ") || number(more.policy_version ?? null)]];
    return el("dl", { class: "facts" }, shown.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  };

  const others = (samples, at, run) => {
    const group = [], elsewhere = [];
    for (let i = 0; i < samples.step.length; i++) {
      if (samples.prompt[i] !== samples.prompt[at]) continue;
      (samples.step[i] === samples.step[at] ? group : elsewhere).push(i);
    }
    const chip = (i, text) => el("a", { class: `chip ${i === at ? "chosen" : ""}`, href: report.link("samples", { run: run || "", at: report.nameOf(samples, i) }), title: samples.text[i].slice(0, 400) },
      el("span", { class: `mark ${samples.right[i] === true ? "right" : samples.right[i] === false ? "wrong" : ""}` }, report.markOf(samples.right[i])), text);
    return [
      group.length > 1 ? el("section", {}, el("h3", {}, `Its group of ${group.length}`), el("div", { class: "chips" }, group.map((i) => chip(i, ` ${samples.sample[i]}: ${number(samples.more[i].reward ?? null, 2)}`)))) : null,
      elsewhere.length ? el("section", {}, el("h3", {}, "The same prompt at other steps"), el("div", { class: "chips" }, elsewhere.slice(0, 40).map((i) => chip(i, ` step ${samples.step[i]}`)))) : null,
    ];
  };

  // What the task draws, or the plain text where it draws nothing.
  const answer = (row, detail, audio) => {
    const drawn = report.panels.map((panel) => panel.sample(row, detail, audio)).filter(Boolean);
    return drawn.length ? drawn : el("pre", { class: "answer" }, row.text);
  };
  const rowOf = (samples, at) => ({ text: samples.text[at], right: samples.right[at], step: samples.step[at], split: samples.split[at],
    prompt: samples.prompts[samples.prompt[at]], scores: samples.scores[at] });

  const elsewhere = async (run, samples, at) => {
    const other = 1 - run;
    if (report.head.runs.length !== 2) return null;
    const theirs = await report.load(other, "samples");
    const id = samples.prompts[samples.prompt[at]].id;
    let best = null;
    for (let i = 0; theirs && i < theirs.step.length; i++)
      if (theirs.split[i] === samples.split[at] && theirs.prompts[theirs.prompt[i]].id === id && (best === null || theirs.step[best] !== samples.step[at])) best = i;
    if (best === null) return null;
    const detail = await report.detail(other, best);
    return el("article", { class: "other card" }, el("div", { class: "card-head" }, report.runMark(other), el("h3", {}, report.head.runs[other].name), el("span", { class: "quiet" }, `step ${theirs.step[best]}`)),
      answer(rowOf(theirs, best), { sample: detail.sample, prompt: null }, null), scores(theirs, best));
  };

  report.drawSample = async (host, run, at) => {
    const samples = await report.load(run, "samples");
    const row = rowOf(samples, at), audio = [];
    const [detail, addresses, theirs] = await Promise.all([report.detail(run, at), report.sounds(run, at), elsewhere(run, samples, at)]);
    const sounds = players(addresses, audio);
    const name = report.nameOf(samples, at);
    const address = report.link("samples", { run: run || "", at: name });
    const copy = el("button", { type: "button", title: "Copy the address of this sample (c)", onclick: () => navigator.clipboard?.writeText(location.href.split("#")[0] + address).then(() => { copy.textContent = "Copied"; }, () => {}) }, "Copy link");
    const reference = Object.entries(row.prompt.reference).filter(([, value]) => value !== null);
    host.replaceChildren(
      el("div", { class: "card-head" }, report.head.runs.length > 1 ? report.runMark(run) : null, el("span", { class: `mark ${row.right === true ? "right" : row.right === false ? "wrong" : ""}` }, report.markOf(row.right)), el("h2", {}, row.prompt.id),
        el("span", { class: "quiet" }, `${row.split === "eval" ? "held-out" : row.split}, step ${row.step}${row.split === "eval" ? "" : `, sample ${samples.sample[at]}`}`), copy),
      ...sounds, ...[answer(row, detail, audio[0] || null)].flat(),
      el("div", { class: "pair" }, scores(samples, at), facts(samples, at)),
      ...others(samples, at, run).filter(Boolean), ...(theirs ? [el("h3", {}, "The other run"), theirs] : []),
      el("details", {}, el("summary", {}, "Raw text and reference"), el("pre", {}, row.text),
        el("table", { class: "plain" }, reference.map(([key, value]) => el("tr", {}, el("th", { scope: "row" }, key), el("td", {}, typeof value === "string" ? value : JSON.stringify(value)))))));
    host.scrollTop = 0;
  };
})(window.report);
