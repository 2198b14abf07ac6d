"use strict";
// The distribution of the segmentations of the chosen word.

const SHOWN_SEGMENTATIONS = 12;

function showDistribution() {
  const m = method(),
    word = tables.words[state.word];
  let law = exactLaw(tables, m, proportion(), word);
  const exact = law !== null;
  if (!exact) {
    const own = samples().map((parts) => partsOf(parts, word));
    const covering = own.filter((parts) => covers(parts, word));
    law = gather(covering.map((parts) => [parts, 1 / own.length])).sort(likeliestFirst);
  }
  byId("distribution-badge").textContent = exact ? "exact" : `estimated from ${samplesText()}`;
  byId("distribution-badge").className = `badge ${exact ? "exact" : "estimated"}`;
  const tokens = tables.tokens.slice(word.first, word.last);
  const possible = tokens.reduce((sum, token) => sum + Math.log10(token.total[0]), 0);
  const pairs = tokens.length === 1 ? pairSplits(tables, [word.start, word.end, tokens[0].id]).length : null;
  byId("word-name").replaceChildren("of ", element("bdi", { class: "mono" }, wordText(word)));
  byId("word-facts").textContent =
    `${large(possible)} segmentation${possible === 0 ? "" : "s"} of its ` +
    `${tokens.length === 1 ? "token" : `${tokens.length} tokens`}${pairs === null ? "" : `, ${pairs} into a pair`}; ` +
    (!m.takes_p
      ? "a fixed rule gives one"
      : exact
        ? `${m.name} can draw ${number(law.length)}`
        : `${number(law.length)} in the samples`) +
    ".";
  const shown = law.slice(0, SHOWN_SEGMENTATIONS),
    top = shown[0]?.[1] ?? 1;
  byId("bars").replaceChildren(
    ...shown.map(([parts, probability]) => {
      const isCanonical =
        parts.length === tokens.length &&
        parts.every(([start, end, id], i) => tokens[i].start === start && tokens[i].end === end && tokens[i].id === id);
      const bar = element(
        "div",
        { class: "bar" },
        svg("svg", { "aria-hidden": "true" }, svg("rect", { width: `${(100 * probability) / top}%`, height: 5 })),
      );
      const row = element(
        "li",
        { class: isCanonical ? "canonical" : "", tabindex: 0 },
        chips(parts),
        element("span", { class: "share" }, percent(probability)),
        bar,
      );
      for (const [event, on] of [
        ["pointerenter", true],
        ["focus", true],
        ["pointerleave", false],
        ["blur", false],
      ]) {
        row.addEventListener(event, () => markPath(on ? parts : []));
      }
      return row;
    }),
  );
  const rest = law.slice(SHOWN_SEGMENTATIONS);
  const crossing = 1 - sum(law.map(([, q]) => q)); // the share of samples in which a token crosses its borders
  byId("others").textContent = [
    rest.length
      ? `${number(rest.length)} other${rest.length === 1 ? "" : "s"}: ${percent(sum(rest.map(([, q]) => q)))}`
      : "",
    crossing > 1e-6 ? `joined with its neighbours: ${percent(crossing)}` : "",
    exact ? "" : `95% intervals: ± ${halfInterval()} percentage points at most`,
  ]
    .filter(Boolean)
    .join("; ");
}

function markPath(parts) {
  const keys = new Set(parts.map((part) => part.join()));
  drawWord(words[state.word]);
  for (const { arc, shape } of words[state.word].arcs) shape.classList.toggle("path", keys.has(arc.join()));
}
