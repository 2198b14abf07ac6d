"use strict";
// uniform-k: a number of splits of the text.

/** Exactly floor(n p) splits, uniform over all refinements; the draws are explained in `kernels/uniform_k.py`. */
const uniformK = {
  draw(tables, method, p, random) {
    const { splits, members, head, tails } = splitCounts(tables, p);
    if (splits === 0) return canonical(tables);
    const chosen = new Map(); // by token, its number of splits
    const best = Math.max(...tails[0]);
    let remaining;
    for (;;) {
      remaining = splits;
      for (const { token, law } of members.slice(0, head)) {
        const u = random.unit(),
          k = law.findIndex((sum) => u < sum);
        chosen.set(token, k);
        remaining -= k;
        if (remaining < 0) break;
      }
      if (remaining >= 0 && remaining < tails[0].length && random.unit() * best < tails[0][remaining]) break;
    }
    members.slice(head).forEach(({ token, weights }, j) => {
      const options = weights.slice(0, remaining + 1).map((weight, k) => weight * (tails[j + 1][remaining - k] ?? 0));
      const k = indexAt(options, random.unit() * tails[j][remaining]);
      chosen.set(token, k);
      remaining -= k;
    });
    return tables.tokens.flatMap((token) =>
      chosen.get(token) > 0 ? drawOfSize(token, chosen.get(token) + 1, random) : [[token.start, token.end, token.id]],
    );
  },
  law(tables, method, p, word) {
    // All refinements of the text are equally likely: a segmentation of a word counts what is left for the others.
    const { splits, members, z } = splitCounts(tables, p);
    const tokens = tables.tokens.slice(word.first, word.last);
    const all = allSegmentations(tokens);
    if (!all || splits === 0) return all && [[tokens.map(({ start, end, id }) => [start, end, id]), 1]];
    const others = convolve(
      members.filter(({ token }) => !tokens.includes(token)).map(({ weights }) => weights),
      splits,
    )[0];
    const list = all.map((parts) => {
      const made = parts.length - tokens.length;
      return [parts, (others[splits - made] ?? 0) * z ** made];
    });
    const sum = list.reduce((total, [, weight]) => total + weight, 0);
    return list.map(([parts, weight]) => [parts, weight / sum]).filter(([, q]) => q > 0);
  },
  expected: (tables, method, p) => tables.tokens.length + splitCounts(tables, p).splits,
};

/**
 * The splits of the text, and for each token that can be split (`members`) the law that their numbers are drawn from.
 *
 * k splits of a token weigh as many as its segmentations with k splits times z^k. The last m members are drawn given
 * the splits of the `head` members before them, backwards through `tails`.
 */
function splitCounts(tables, p) {
  const wanted = Math.min(budget(tables, p), tables.data.max_splits ?? Infinity);
  if (tables.splitCounts?.wanted === wanted) return tables.splitCounts;
  const splits = mostSplits(tables.tokens, wanted);
  const types = new Map(); // by id
  for (const token of tables.tokens) {
    if (token.maxSplits === 0) continue;
    if (!types.has(token.id)) types.set(token.id, { ways: token.ways[0].slice(1, token.maxSplits + 2), count: 0 });
    types.get(token.id).count++;
  }
  const z = splits > 0 ? fitZ([...types.values()], splits) : 1;
  for (const type of types.values()) {
    let sum = 0;
    const sums = type.ways.map((ways, k) => (sum += ways * z ** (z <= 1 ? k : k - type.ways.length + 1)));
    type.law = sums.map((value, k) => (k === sums.length - 1 ? 1 : value / sum));
    type.weights = type.law.map((value, k) => (k > 0 ? value - type.law[k - 1] : value));
  }
  const members = tables.tokens
    .filter((token) => types.has(token.id))
    .map((token) => ({ token, ...types.get(token.id) }));
  const head = members.length - Math.min(members.length, 8 + Math.floor(0.5 * members.length ** 0.6));
  const tails = convolve(
    members.slice(head).map(({ weights }) => weights),
    splits,
  );
  tables.splitCounts = { wanted, splits, z, members, head, tails };
  return tables.splitCounts;
}

/** The z at which the expected splits are right to a third of a standard deviation: Newton's method on log z. */
function fitZ(types, splits) {
  const pairs = types.reduce((sum, { ways, count }) => sum + count * ways[1], 0);
  let x = pairs > 0 ? Math.log(splits / pairs) : 0,
    z = 1;
  let low = -60,
    high = 700 / Math.max(12, ...types.map(({ ways }) => ways.length - 1));
  for (let round = 0; round < 60; round++) {
    z = Math.exp(x);
    let expected = 0,
      variance = 0;
    for (const { ways, count } of types) {
      let weight = 0,
        mean = 0,
        square = 0;
      ways.forEach((number, k) => {
        const w = number * z ** (z <= 1 ? k : k - ways.length + 1);
        weight += w;
        mean += w * k;
        square += w * k * k;
      });
      mean /= weight;
      expected += count * mean;
      variance += count * (square / weight - mean * mean);
    }
    if (Math.abs(expected - splits) <= 0.3 * Math.sqrt(variance)) break;
    if (expected < splits) low = x;
    else high = x;
    const step = variance > 0 ? x + (splits - expected) / variance : high + 1;
    x = step > low && step < high ? step : 0.5 * (low + high);
  }
  return z;
}

/** tails[j][r]: the probability that the j-th and all further numbers of splits have the sum r, up to `most`. */
function convolve(laws, most) {
  const tails = new Array(laws.length + 1);
  tails[laws.length] = [1];
  for (let j = laws.length - 1; j >= 0; j--) {
    const below = tails[j + 1];
    const row = new Array(Math.min(below.length + laws[j].length - 1, most + 1)).fill(0);
    laws[j].forEach((weight, k) => {
      if (weight > 0) for (let r = 0; r < below.length && r + k < row.length; r++) row[r + k] += weight * below[r];
    });
    tails[j] = row;
  }
  return tails;
}

/** The largest number of splits up to `wanted` that the tokens can have together. */
function mostSplits(tokens, wanted) {
  let possible = new Set([0]);
  for (const token of tokens) {
    if (token.maxSplits === 0) continue;
    const next = new Set();
    for (const sum of possible) {
      for (let k = 0; k <= token.maxSplits && sum + k <= wanted; k++) if (token.ways[0][k + 1] > 0) next.add(sum + k);
    }
    possible = next;
  }
  return Math.max(...possible);
}
