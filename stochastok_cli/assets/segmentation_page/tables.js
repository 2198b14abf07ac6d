"use strict";
// The tables of a text. A segmentation is a list of parts, and a part is [start, end, id]: the token `id` covers the
// bytes start to end.

/** The tables of a text, as laws read them. `data` is what `segmentation_page.py` writes. */
function readTables(data) {
  const kept = new Set(data.kept);
  const arcsFrom = Array.from({ length: data.starts.at(-1) + 1 }, () => []); // by byte: [end, id]
  for (const [start, end, id] of data.arcs) arcsFrom[start].push([end, id]);
  const tables = { data, kept, arcsFrom, splits: new Map(), walks: new Map() };
  tables.tokens = data.ids.map((id, i) => latticeOf(id, data.starts[i], data.starts[i + 1], arcsFrom, kept));
  tables.words = data.words.slice(0, -1).map((first, i) => {
    const last = data.words[i + 1];
    return { index: i, first, last, start: data.starts[first], end: data.starts[last] };
  });
  tables.arcsOf = tables.words.map(() => []); // by word
  let word = 0;
  for (const arc of data.arcs) {
    while (arc[0] >= tables.words[word].end) word++;
    tables.arcsOf[word].push(arc);
  }
  tables.merges = new Map(data.merges.map(([left, right, rank, merged]) => [`${left},${right}`, { rank, merged }]));
  tables.matchesFrom = Array.from(arcsFrom, () => []);
  for (const [start, end, id] of data.matches) tables.matchesFrom[start].push([end, id]);
  return tables;
}

/**
 * The lattice of one token: its edges, and the ways to cover the bytes from a position to its end.
 *
 * ways[i][k] counts those with k parts, total[i] all of them; positions count from the first byte of the token.
 */
function latticeOf(id, start, end, arcsFrom, kept) {
  const n = end - start;
  const edges = Array.from({ length: n }, (_, i) =>
    kept.has(id)
      ? i === 0
        ? [[n, id]]
        : []
      : arcsFrom[start + i].filter(([to]) => to <= end).map(([to, piece]) => [to - start, piece]),
  );
  const ways = Array.from({ length: n + 1 }, () => new Array(n + 1).fill(0));
  const total = new Array(n + 1).fill(0);
  ways[n][0] = total[n] = 1;
  for (let i = n - 1; i >= 0; i--) {
    for (const [to] of edges[i]) {
      for (let k = 1; k <= n - i; k++) ways[i][k] += ways[to][k - 1];
      total[i] += total[to];
    }
  }
  const maxSplits = ways[0].reduce((most, count, k) => (k > 0 && count > 0 ? k - 1 : most), 0);
  return { id, start, end, edges, ways, total, maxSplits };
}

/** Whether parts of a word cover all of it: no token crosses its borders. */
const covers = (parts, { start, end }) => parts.length > 0 && parts[0][0] === start && parts.at(-1)[1] === end;

/** The tokens of a text as parts. */
const canonical = (tables) => tables.tokens.map(({ start, end, id }) => [start, end, id]);

/** The pairs of tokens whose bytes are those of a part, in the order of `split_table`. */
function pairSplits(tables, [start, end, id]) {
  if (tables.kept.has(id)) return [];
  const key = `${start},${end}`;
  if (!tables.splits.has(key)) {
    const pairs = [];
    for (let middle = start + 1; middle < end; middle++) {
      const heads = tables.arcsFrom[start].filter(([to]) => to === middle);
      const tails = heads.length ? tables.arcsFrom[middle].filter(([to]) => to === end) : [];
      for (const [, head] of heads) {
        for (const [, tail] of tails)
          pairs.push([
            [start, middle, head],
            [middle, end, tail],
          ]);
      }
    }
    tables.splits.set(key, pairs);
  }
  return tables.splits.get(key);
}

/** The index that `threshold`, from 0 to the sum of the weights, falls on. */
function indexAt(weights, threshold) {
  let chosen = 0;
  for (let i = 0; i < weights.length; i++) {
    if (weights[i] > 0) {
      chosen = i;
      threshold -= weights[i];
      if (threshold < 0) break;
    }
  }
  return chosen;
}

/** A segmentation of a token, uniform over those with `size` parts. */
function drawOfSize(token, size, random) {
  const parts = [];
  let i = 0;
  for (let k = size; k > 0; k--) {
    const threshold = random.unit() * token.ways[i][k];
    const [to, id] =
      token.edges[i][
        indexAt(
          token.edges[i].map(([j]) => token.ways[j][k - 1]),
          threshold,
        )
      ];
    parts.push([token.start + i, token.start + to, id]);
    i = to;
  }
  return parts;
}

/** The most segmentations for which an exact law is computed. */
const MOST_SEGMENTATIONS = 3000;

/** The most segmentations times attempted splits for which the law of a text is computed. */
const MOST_STEPS = 30000;

const keyOf = (parts) => parts.map((part) => `${part[1]}:${part[2]}`).join();

/** All segmentations of neighbouring tokens, each by its own parts; null if there are too many. */
function allSegmentations(tokens) {
  if (tokens.reduce((product, token) => product * token.total[0], 1) > MOST_SEGMENTATIONS) return null;
  const from = (token, i) =>
    i === token.edges.length
      ? [[]]
      : token.edges[i].flatMap(([to, id]) =>
          token.total[to] > 0 ? from(token, to).map((rest) => [[token.start + i, token.start + to, id], ...rest]) : [],
        );
  return tokens
    .map((token) => (token.segmentations ??= from(token, 0)))
    .reduce((before, some) => before.flatMap((parts) => some.map((more) => [...parts, ...more])), [[]]);
}

/** The law of independent neighbours; null if one is not known or there are too many segmentations. */
function productOf(laws) {
  if (laws.some((law) => law === null)) return null;
  if (laws.reduce((product, law) => product * law.length, 1) > MOST_SEGMENTATIONS) return null;
  return laws.reduce(
    (before, law) => before.flatMap(([parts, p]) => law.map(([more, q]) => [[...parts, ...more], p * q])),
    [[[], 1]],
  );
}

/** A list of [parts, probability] in which no segmentation occurs twice. */
function gather(list) {
  const byKey = new Map();
  for (const [parts, weight] of list) {
    const key = keyOf(parts),
      known = byKey.get(key);
    if (known) known[1] += weight;
    else if (weight > 0) byKey.set(key, [parts, weight]);
  }
  return [...byKey.values()];
}
