"use strict";
// An emotion answer: the recording's contours, what was said in it, the reasoning with its claims, the label.

((report, speech) => {
  const { el, number } = report;
  const NAMES = { pitch_level: "pitch", energy_level: "energy", speed_level: "rate", intonation: "intonation", gender: "speaker", age_level: "age", stressed_words: "stressed", quoted_words: "quoted" };
  const TAGS = /^\s*<think>([\s\S]*?)<\/think>\s*<answer>([\s\S]*?)<\/answer>\s*$/;

  const known = (row, name) => {
    const value = name === "quoted_words" ? row.prompt.reference.text : row.prompt.reference[name];
    return Array.isArray(value) ? value.join(", ") : value;
  };
  const told = (row) => (claim) => {
    const fact = known(row, claim.type);
    return `${NAMES[claim.type] || claim.type}: ${claim.value} – ${claim.verdict === "unmeasured" ? "not measured" : `${claim.verdict}, measured ${fact}`}`;
  };

  // Measured against said, a row for each attribute.
  const table = (row, facts, claims) => {
    const said = new Map(claims.map((claim) => [claim.type, claim]));
    const lines = facts.filter((fact) => (fact.level !== null && fact.level !== undefined && fact.level.length !== 0) || said.has(fact.name)).map((fact) => {
      const claim = said.get(fact.name);
      const unit = fact.measured === null || fact.measured === undefined ? "" : ` ${number(fact.measured, 1)} ${fact.unit}`;
      return el("tr", {}, el("th", { scope: "row" }, NAMES[fact.name] || fact.name),
        el("td", {}, Array.isArray(fact.level) ? fact.level.join(", ") : fact.level ?? "not measured", el("small", {}, unit)),
        el("td", {}, claim ? el("span", { class: `claim-chip ${claim.verdict}` }, `${speech.marks[claim.verdict]} ${claim.value}`) : el("span", { class: "quiet" }, "not said")));
    });
    return lines.length ? el("table", { class: "plain said" }, el("thead", {}, el("tr", {}, el("td"), el("th", { scope: "col" }, "measured"), el("th", { scope: "col" }, "said"))), el("tbody", {}, lines)) : null;
  };

  report.panels.push({
    sample(row, detail, audio) {
      if (row.prompt.reference.emotion === undefined) return null;
      const prompt = detail.prompt, claims = (detail.sample && detail.sample.claims) || [];
      const match = TAGS.exec(row.text);
      const start = match ? [...row.text.slice(0, row.text.indexOf(match[1]))].length : 0, end = start + [...(match ? match[1] : row.text)].length;
      const reasoning = el("p", { class: "reasoning" }, speech.claims(row.text, claims, told(row), start, end));
      const label = match ? match[2].trim() : "no answer in the schema";
      return el("div", { class: "emotion" },
        prompt && prompt.outline ? el("div", { class: "recording" }, speech.wave(prompt.outline, audio)) : null,
        row.prompt.reference.text ? el("p", { class: "transcript" }, `“${row.prompt.reference.text}”`, el("span", { class: "quiet" }, ` ${row.prompt.reference.speaker ?? ""}`)) : null,
        el("p", { class: "verdict" }, el("span", { class: `answered ${row.right ? "right" : "wrong"}` }, `${row.right ? "✓" : "✗"} ${label}`), row.right ? null : el("span", { class: "quiet" }, ` right is ${row.prompt.reference.emotion}`)),
        reasoning,
        claims.length ? el("p", { class: "key claims-key" }, ["right", "wrong", "unmeasured"].map((verdict) => el("span", { class: `claim-chip ${verdict}` }, `${speech.marks[verdict]} ${verdict}`))) : null,
        prompt ? table(row, prompt.facts, claims) : null);
    },
  });
})(window.report, window.speech);
