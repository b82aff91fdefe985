"use strict";
// The layout of the map: a box for each block and role; cells fill it from left to right, then down.

const SIZES = [26, 22, 18, 15, 12, 10]; // px of a cell, with the gap around it
const TEXT_FROM = 18; // px: smallest cell with a number of bits
const HEAD = 122, GAP = 5, TALL = 430; // px: width of role names; gap between blocks; target height of all cells

/** The indices of layers by role, in the page's order, and by block, in order of execution. */
function boxesOf(layers) {
  const known = Object.keys(PAGE.roles);
  const blocks = [...new Set(layers.map((cell) => cell.block))];
  const roles = [...new Set(layers.map((cell) => cell.role))];
  roles.sort((a, b) => (known.indexOf(a) + 1 || 99) - (known.indexOf(b) + 1 || 99));
  const boxes = new Map(roles.map((role) => [role, new Map(blocks.map((block) => [block, []]))]));
  layers.forEach((cell, place) => boxes.get(cell.role).get(cell.block).push(place));
  return { blocks, roles, boxes };
}

/** The number of columns of each block and the size of cells, so that all fit the width. */
function fitted({ blocks, roles, boxes }, width) {
  const most = blocks.map((block) => roles.map((role) => boxes.get(role).get(block).length));
  for (const size of SIZES) {
    const room = Math.floor((width - HEAD - GAP * blocks.length) / size);
    if (room < blocks.length) continue;
    const across = spreadOut(most, room);
    if (rowsOf(most, across) * size <= TALL || size === SIZES.at(-1)) return { size, across };
  }
  return { size: SIZES.at(-1), across: blocks.map((_, i) => Math.ceil(Math.sqrt(Math.max(...most[i])))) };
}

/** Starts with one column a block, and widens the block with the tallest box while there is room. */
function spreadOut(most, room) {
  const across = most.map(() => 1);
  const height = (i) => Math.ceil(Math.max(...most[i]) / across[i]);
  for (let left = room - across.length; left > 0; left -= 1) {
    const heights = across.map((_, i) => height(i));
    const worst = heights.indexOf(Math.max(...heights));
    if (heights[worst] <= 1) break;
    across[worst] += 1;
  }
  return across;
}

function rowsOf(most, across) {
  return most[0].map((_, role) => Math.max(...most.map((counts, i) => Math.ceil(counts[role] / across[i]))))
    .reduce((a, b) => a + b, 0);
}

/** Names of blocks without their common prefix: `down_blocks.1` for `unet.down_blocks.1`. */
function shortNames(blocks) {
  const first = blocks[0].split(".")[0];
  const shared = blocks.every((block) => block.startsWith(`${first}.`));
  return blocks.map((block) => (shared ? block.slice(first.length + 1) : block));
}
