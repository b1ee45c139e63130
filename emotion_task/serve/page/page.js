// The page of `emotion serve`: records or takes a file, has it explained, and draws the explanation.
// Whatever the service says goes in as text, never as markup.

const $ = (id) => document.getElementById(id);
const audio = $("audio");
let limits = { seconds: 30, megabytes: 8 };
let shown = null; // the explanation on the page
let latest = 0; // number of the latest request: answers to earlier ones are dropped
let microphone = null;

// Asking

async function explain(blob, name) {
  const number = ++latest;
  if (blob.size > limits.megabytes * 1e6) return say(`The file is too large: at most ${limits.megabytes} MB are taken.`);
  say("Listening …", true);
  const form = new FormData();
  form.append("file", blob, "recording");
  form.append("curves", "1");
  if ($("text").value.trim()) form.append("text", $("text").value.trim());
  if ($("gender").value) form.append("gender", $("gender").value);
  const token = $("token").value || sessionStorage.getItem("token") || "";
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let answer, body;
  try {
    answer = await fetch("v1/explain", { method: "POST", body: form, headers });
    body = await answer.json();
  } catch {
    if (number === latest) say("The service does not answer.");
    return;
  }
  if (number !== latest) return;
  if (answer.status === 401) {
    $("access").hidden = false;
    $("token").focus();
    sessionStorage.removeItem("token");
    $("token").onchange = () => explain(blob, name);
    return say(token ? "This token is not the service's." : "Enter the token of this service; the recording is sent again then.");
  }
  if (!answer.ok) return say(body.error?.message ?? `The service answered ${answer.status}.`);
  if (token) sessionStorage.setItem("token", token);
  $("access").hidden = true;
  show(body, blob, name);
}

function say(text, isBusy = false) {
  $("message").hidden = !text;
  $("message").textContent = text;
  $("message").classList.toggle("busy", isBusy);
}

// Showing

function show(explained, blob, name) {
  say("");
  shown = explained;
  $("empty").hidden = true;
  $("result").hidden = false;
  URL.revokeObjectURL(audio.src);
  audio.src = URL.createObjectURL(blob);
  $("name").textContent = name;
  const { seconds } = explained.curves;
  $("heard").hidden = explained.heard_s > 0.9 * (explained.measured.speech_end_s - explained.measured.speech_start_s);
  $("heard").textContent = `The model heard ${explained.heard_s.toFixed(1)} of ${seconds.toFixed(1)} s.`;
  showLabel(explained);
  showReasoning(explained);
  showFacts(explained);
  draw();
}

function showLabel({ label, probabilities }) {
  $("label").textContent = label ?? "The model named none of its labels.";
  $("label").classList.toggle("none", label === null);
  const rows = Object.entries(probabilities ?? {}).sort((a, b) => b[1] - a[1]);
  $("odds").tBodies[0].replaceChildren(...rows.map(([name, value], index) => {
    const fill = element("div", "fill");
    fill.style.width = `${100 * value}%`;
    const track = element("div", "track");
    track.append(fill);
    const row = element("tr", index ? "" : "first");
    row.append(element("th", "", name), element("td"), element("td", "", percent(value)));
    row.cells[0].scope = "row";
    row.cells[1].append(track);
    return row;
  }));
}

const percent = (value) => value < 0.005 ? "< 1 %" : `${Math.round(100 * value)} %`;
const VERDICTS = { right: "agrees with the measurement", wrong: "differs", unmeasured: "not measured" };

function showReasoning({ reasoning, claims }) {
  const characters = Array.from(reasoning); // places count characters, not UTF-16 units
  const pieces = [];
  let at = 0;
  for (const claim of claims) {
    if (claim.start < at) continue; // inside of another one
    pieces.push(characters.slice(at, claim.start).join(""));
    const mark = element("mark", claim.verdict, characters.slice(claim.start, claim.end).join(""));
    const measured = claim.measured ? `; measured: ${claim.measured}` : "";
    mark.title = `${named(claim.type)} ${claim.value}: ${VERDICTS[claim.verdict]}${measured}`;
    mark.tabIndex = 0;
    pieces.push(mark);
    at = claim.end;
  }
  pieces.push(characters.slice(at).join(""));
  $("reasoning").replaceChildren(...pieces);
}

const NAMES = { pitch_level: "pitch", energy_level: "energy", speed_level: "rate", intonation: "melody", gender: "voice", age_level: "age", stressed_words: "stress", quoted_words: "words" };
const named = (type) => NAMES[type] ?? type;

function showFacts({ claims, levels, measured }) {
  const units = {
    pitch_level: measured.f0_median_hz && `${Math.round(measured.f0_median_hz)} Hz`,
    energy_level: `${measured.level_dbfs.toFixed(1)} dBFS`,
    speed_level: measured.articulation_rate && `${measured.articulation_rate.toFixed(1)} syllables/s`,
    intonation: measured.intonation_change_st !== undefined && `${signed(measured.intonation_change_st)} st`,
  };
  const rows = [...new Set(["pitch_level", "energy_level", "speed_level", "intonation", ...claims.map((c) => c.type)])];
  $("facts").tBodies[0].replaceChildren(...rows.filter((type) => type in units || levels[type]).map((type) => {
    const claim = claims.find((each) => each.type === type);
    const row = element("tr");
    const said = element("td", `said ${claim?.verdict ?? ""}`, claim?.value ?? "–");
    row.append(element("th", "", named(type)), said, element("td", "", levels[type] ?? "–"), element("td", "", units[type] || ""));
    row.cells[0].scope = "row";
    return row;
  }));
}

const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(1)}`;

function element(name, className = "", text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

// Drawing

function svg(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function samplesPath(peaks, width, middle, height, loudest) {
  const x = (index) => (index / Math.max(1, peaks.length - 1) * width).toFixed(1);
  const y = (value) => (middle - value / loudest * height).toFixed(1);
  const above = peaks.map(([, high], index) => `${x(index)},${y(high)}`);
  const below = peaks.map(([low], index) => `${x(index)},${y(low)}`).reverse();
  return `M${above.join("L")}L${below.join("L")}Z`;
}

// Frames to a path that breaks where a value is null.
function linePath(values, x, y) {
  let path = "", isOn = false;
  values.forEach((value, index) => {
    if (value === null) { isOn = false; return; }
    path += `${isOn ? "L" : "M"}${x(index).toFixed(1)},${y(value).toFixed(1)}`;
    isOn = true;
  });
  return path;
}

function draw() {
  if (!shown) return;
  const { seconds, peaks, frame_s: frame, f0_hz: f0, energy_db: energy } = shown.curves;
  const board = $("wave"), width = board.clientWidth, height = board.clientHeight;
  // Two lanes: pitch over the waveform, energy below.
  const left = 52, right = 14, foot = 22, gap = 16, inner = width - left - right, tall = height - foot;
  const upper = Math.round((tall - gap) * 0.7), lower = tall - gap - upper, floor = tall;
  const at = (time) => left + time / seconds * inner;
  const frames = (index) => at((index + 0.5) * frame);
  const parts = [];
  const note = (kind, y, text) => parts.push(svg("text", { class: kind, x: left - 8, y: y + 4, "text-anchor": "end" }, text));
  const step = [0.1, 0.2, 0.5, 1, 2, 5, 10].find((each) => seconds / each <= 10) ?? 30;
  for (let time = 0; time <= seconds + 1e-9; time += step) {
    parts.push(svg("line", { class: "grid", x1: at(time), x2: at(time), y1: 0, y2: tall }));
    parts.push(svg("text", { x: at(time), y: height - 4, "text-anchor": "middle" }, `${+time.toFixed(1)}${time ? "" : " s"}`));
  }
  const loudest = Math.max(1e-4, ...peaks.map(([low, high]) => Math.max(-low, high)));
  const wave = svg("g", { transform: `translate(${left} 0)` });
  wave.append(svg("path", { class: "samples", d: samplesPath(peaks, inner, upper / 2, upper / 2, loudest) }));
  parts.push(wave);
  const loud = Math.max(...energy), quiet = Math.max(Math.min(...energy), loud - 60);
  if (energy.length && loud > quiet) {
    const y = (value) => floor - (Math.max(value, quiet) - quiet) / (loud - quiet) * lower;
    const line = linePath(energy, frames, y);
    parts.push(svg("path", { class: "energy-area", d: `${line}L${frames(energy.length - 1)},${floor}L${frames(0)},${floor}Z` }));
    parts.push(svg("path", { class: "energy", d: line }));
    for (const value of [loud, quiet]) note("of-energy", y(value), `${Math.round(value)} dB`);
  }
  const voiced = f0.filter((value) => value !== null);
  if (voiced.length) {
    const lowest = Math.min(...voiced), highest = Math.max(...voiced), low = lowest / 1.15, high = highest * 1.15;
    const y = (value) => 8 + Math.log(high / value) / Math.log(high / low) * (upper - 16);
    parts.push(svg("path", { class: "pitch", d: linePath(f0, frames, y) }));
    note("of-pitch", y(highest), `${Math.round(highest)} Hz`);
    if (y(lowest) - y(highest) > 14) note("of-pitch", y(lowest), `${Math.round(lowest)} Hz`);
  }
  parts.push(svg("line", { id: "head", class: "head", y1: 0, y2: tall, x1: at(0), x2: at(0), visibility: "hidden" }));
  board.setAttribute("viewBox", `0 0 ${width} ${height}`);
  board.replaceChildren(...parts);
  board.onclick = (event) => {
    const time = (event.clientX - board.getBoundingClientRect().left - left) / inner * seconds;
    audio.currentTime = Math.min(Math.max(0, time), seconds);
    moveHead();
  };
  function moveHead() {
    const head = $("head");
    if (!head) return;
    head.setAttribute("visibility", audio.currentTime > 0 ? "visible" : "hidden");
    for (const end of ["x1", "x2"]) head.setAttribute(end, at(Math.min(audio.currentTime, seconds)));
    if (!audio.paused) requestAnimationFrame(moveHead);
  }
  audio.onplay = () => { $("play").textContent = "❚❚"; $("play").ariaLabel = "Pause"; moveHead(); };
  audio.onpause = audio.onended = () => { $("play").textContent = "▶"; $("play").ariaLabel = "Play"; };
}

// Recording

async function startRecording() {
  if (!navigator.mediaDevices) return say("Browsers give the microphone to https and localhost alone.");
  let stream;
  try {
    // As it is: what browsers do to a voice for calls changes its level and its melody.
    const raw = { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 };
    stream = await navigator.mediaDevices.getUserMedia({ audio: raw });
  } catch (error) {
    return say(`The microphone cannot be used: ${error.message}.`);
  }
  const context = new AudioContext();
  await context.audioWorklet.addModule("recorder.js");
  const node = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 });
  context.createMediaStreamSource(stream).connect(node);
  const chunks = [], peaks = [];
  let count = 0;
  node.port.onmessage = ({ data }) => {
    chunks.push(data);
    count += data.length;
    peaks.push([Math.min(...data), Math.max(...data)]);
    if (count / context.sampleRate >= limits.seconds - 0.1) stopRecording();
  };
  const drawn = setInterval(() => drawLive(peaks, count / context.sampleRate), 66);
  microphone = { stream, context, chunks, drawn, count: () => count };
  say("");
  $("live").hidden = false;
  $("empty").hidden = true;
  $("record").ariaPressed = "true";
  $("record-text").textContent = "Stop";
}

function drawLive(peaks, seconds) {
  const board = $("live-wave"), width = board.clientWidth, height = board.clientHeight;
  const size = Math.max(1, Math.ceil(peaks.length / 600)), kept = [];
  for (let i = 0; i < peaks.length; i += size) {
    const part = peaks.slice(i, i + size);
    kept.push([Math.min(...part.map((each) => each[0])), Math.max(...part.map((each) => each[1]))]);
  }
  const loudest = Math.max(0.05, ...kept.map(([low, high]) => Math.max(-low, high)));
  board.setAttribute("viewBox", `0 0 ${width} ${height}`);
  if (kept.length) board.replaceChildren(svg("path", { class: "samples", d: samplesPath(kept, width, height / 2, height / 2, loudest) }));
  $("live-time").textContent = `${seconds.toFixed(1)} s of at most ${limits.seconds} s`;
}

async function stopRecording() {
  if (!microphone) return;
  const { stream, context, chunks, drawn, count } = microphone;
  microphone = null;
  clearInterval(drawn);
  stream.getTracks().forEach((track) => track.stop());
  await context.close();
  $("live").hidden = true;
  $("record").ariaPressed = "false";
  $("record-text").textContent = "Record";
  const time = new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  await explain(wavOf(chunks, count(), context.sampleRate), `Recording, ${time}`);
}

function wavOf(chunks, count, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * count));
  const write = (at, text) => [...text].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  write(0, "RIFF"); view.setUint32(4, 36 + 2 * count, true); write(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
  view.setUint32(24, rate, true); view.setUint32(28, 2 * rate, true); view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  write(36, "data"); view.setUint32(40, 2 * count, true);
  let at = 44;
  for (const chunk of chunks) {
    for (const sample of chunk) {
      view.setInt16(at, Math.round(Math.max(-1, Math.min(1, sample)) * 32767), true);
      at += 2;
    }
  }
  return new Blob([view], { type: "audio/wav" });
}

// Wiring

$("record").onclick = () => microphone ? stopRecording() : startRecording();
$("play").onclick = () => audio.paused ? audio.play().catch(() => say("This browser cannot play the file.")) : audio.pause();
$("file").onchange = () => {
  const [file] = $("file").files;
  $("file").value = "";
  if (file) explain(file, file.name);
};
for (const event of ["dragenter", "dragover"]) addEventListener(event, (e) => { e.preventDefault(); $("drop").classList.add("over"); });
for (const event of ["dragleave", "drop"]) addEventListener(event, (e) => { e.preventDefault(); $("drop").classList.remove("over"); });
addEventListener("drop", (event) => {
  const [file] = event.dataTransfer.files;
  if (file) explain(file, file.name);
});
new ResizeObserver(draw).observe($("wave"));
matchMedia("(prefers-color-scheme: dark)").onchange = draw;

try {
  const health = await (await fetch("health")).json();
  if (health.limits) limits = health.limits;
  $("model").textContent = health.model ? `${health.model}, ready` : health.error.message;
  $("limits").textContent = `WAV, FLAC, Ogg or MP3, up to ${limits.seconds} s`;
} catch {
  $("model").textContent = "The service does not answer.";
}
