"use strict";
// The number of tokens against p, for every method.

const DASHES = ["", "7 3", "2 3", "10 3 2 3", "4 2", "", "1 4", "12 4"];

const curves = new Map(); // by method, seed and last p: the mean numbers of tokens

const curveKey = (m) => `${m.name}/${state.seed}/${xMaximum()}`;

function computeCurve(m) {
  const last = Math.min(xMaximum(), m.max_p),
    steps = 20;
  const at = m.samples
    ? m.grid.filter((p) => p <= last)
    : Array.from({ length: steps + 1 }, (_, i) => (last * i) / steps);
  const count = Math.round(Math.min(200, Math.max(10, 20000 / data.starts.at(-1))));
  curves.set(
    curveKey(m),
    at.map((p) => ({ p, ...meanTokens(m, p, count) })),
  );
}

const xMaximum = () => Math.max(1, method().takes_p ? proportion() : 1);
const hue = (i) => (!data.methods[i].takes_p ? "soft" : i % 7 === 6 ? "ink" : `h${i % 7}`);

/** Draws the curves that are computed, and computes the others one by one, so that the page answers in between. */
function showGrowth() {
  drawGrowth();
  const missing = data.methods.find((m) => m.takes_p && !curves.has(curveKey(m)));
  if (!missing) return;
  growthTimer = setTimeout(() => {
    computeCurve(missing);
    showGrowth();
  }, 0);
}

function drawGrowth() {
  const n = tables.tokens.length,
    width = 440,
    height = 236,
    left = 38,
    right = 10,
    top = 10,
    bottom = 34;
  const drawn = data.methods.map((m, i) => ({ m, i, points: curves.get(curveKey(m)) })).filter(({ points }) => points);
  const all = drawn.flatMap(({ points }) => points.map((point) => point.value / n));
  if (!method().takes_p) all.push(method().samples[0][0].length / n);
  const most = Math.max(1.2, ...all),
    least = Math.min(1, ...all),
    xMost = xMaximum();
  const x = (p) => left + ((width - left - right) * p) / xMost;
  const y = (growth) => height - bottom - ((height - top - bottom) * (growth - least)) / (most - least);
  const chart = svg("svg", {
    viewBox: `0 0 ${width} ${height}`,
    role: "img",
    "aria-label": "Growth of the text against p, a line for each method; the table has the values",
  });
  for (const tick of ticks(least, most)) {
    chart.append(
      svg("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }),
      svg("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, `${Number(tick.toPrecision(3))}×`),
    );
  }
  for (const tick of ticks(0, xMost))
    chart.append(svg("text", { x: x(tick), y: height - 16, "text-anchor": "middle" }, Number(tick.toPrecision(3))));
  chart.append(
    svg("text", { class: "axis", x: (left + width - right) / 2, y: height + 4, "text-anchor": "middle" }, "p"),
  );
  const line = ({ i, points }) =>
    svg("path", {
      class: `curve ${hue(i)}${i === state.method ? " chosen" : ""}`,
      "stroke-dasharray": DASHES[i % DASHES.length],
      d: points.map((point, k) => `${k ? "L" : "M"}${x(point.p).toFixed(1)},${y(point.value / n).toFixed(1)}`).join(""),
    });
  chart.append(
    ...drawn.filter(({ i }) => i !== state.method).map(line),
    ...drawn.filter(({ i }) => i === state.method).map(line),
  );
  const now = method().takes_p ? mean(samples().map((parts) => parts.length)) / n : method().samples[0][0].length / n;
  if (method().takes_p)
    chart.append(
      svg("line", { class: "cursor", x1: x(proportion()), x2: x(proportion()), y1: top, y2: height - bottom }),
      svg("circle", { class: `dot ${hue(state.method)}`, cx: x(proportion()), cy: y(at(method()).value / n), r: 5.5 }),
    );
  else chart.append(svg("path", { class: `curve chosen ${hue(state.method)}`, d: `M${x(0)},${y(now)}H${x(xMost)}` }));
  byId("chart").replaceChildren(chart);
  byId("methods").tBodies[0].replaceChildren(
    ...data.methods.map((m, i) => {
      const swatch = svg(
        "svg",
        { width: 26, height: 8, "aria-hidden": "true" },
        svg("path", {
          class: `curve ${hue(i)} chosen`,
          "stroke-dasharray": m.takes_p ? DASHES[i % DASHES.length] : "",
          d: m.takes_p ? "M0,4H26" : "M11,4H15",
        }),
      );
      const button = element("button", { type: "button", "aria-pressed": i === state.method }, swatch, m.name);
      button.addEventListener("click", () => {
        state.method = i;
        state.first = 0;
        update();
      });
      const tokens = at(m).value;
      return element(
        "tr",
        { class: i === state.method ? "chosen" : "" },
        element("td", {}, button),
        element(
          "td",
          { title: at(m).exact ? undefined : `the mean of ${number(at(m).count)} samples` },
          `${at(m).exact ? "" : "≈ "}${number(tokens, at(m).exact && Number.isInteger(tokens) ? 0 : 1)}`,
        ),
        element("td", {}, `${number(tokens / n, 2)}×`),
      );
    }),
  );
  const isLimited = data.methods.some((m) => m.takes_p && state.p > m.max_p);
  byId("growth-note").textContent =
    `At p = ${shortNumber(state.p)}${isLimited ? ", or the largest that a method has here" : ""}. ` +
    "Exact but where ≈ stands: those are means of samples.";
}

const atKey = (m) => `${m.name}/${state.seed}/at/${proportion(m)}`;

/** The mean number of tokens of a method at the p of the slider. */
function at(m) {
  const key = atKey(m);
  if (!curves.has(key)) {
    curves.set(
      key,
      m === method() && !lawOf(m).expected && m.takes_p && !(proportion() === 0 && m.identity_at_zero)
        ? estimated(samples().map((parts) => parts.length))
        : meanTokens(m, proportion(m), Math.round(Math.min(200, Math.max(10, 20000 / data.starts.at(-1))))),
    );
  }
  return curves.get(key);
}

/** Round numbers from `low` to `high`, some 5 of them. */
function ticks(low, high) {
  const rough = (high - low) / 5,
    power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * power).find((size) => size >= rough * 0.999);
  return Array.from({ length: 12 }, (_, i) => (Math.ceil(low / step - 1e-9) + i) * step).filter(
    (tick) => tick <= high * 1.0001,
  );
}
