import assert from "node:assert/strict";
import { test } from "node:test";
import { uuid7 } from "../src/uuid7";
import { setGlobal } from "./browser";

const UUID7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}$/;
const now = Date.now;

test("an id is a UUIDv7 of this moment", () => {
  const before = Date.now();

  const id = uuid7()!;

  assert.match(id, UUID7);
  const at = parseInt(id.slice(0, 13).replace("-", ""), 16);
  assert.ok(at >= before && at <= Date.now());
});

test("ids do not repeat", () => {
  assert.equal(new Set(Array.from({ length: 20_000 }, uuid7)).size, 20_000);
});

for (const [what, clock] of [["frozen", () => 0], ["not a number", () => NaN], ["absurd", () => 1e300]] as const)
  test(`with a clock that is ${what}, ids are still valid and distinct`, () => {
    Date.now = clock;

    const ids = Array.from({ length: 100 }, uuid7);

    Date.now = now;
    ids.forEach((id) => assert.match(id!, UUID7));
    assert.equal(new Set(ids).size, 100);
  });

test("without crypto, Math.random does", () => {
  setGlobal("crypto", () => undefined);

  const ids = Array.from({ length: 100 }, uuid7);

  ids.forEach((id) => assert.match(id!, UUID7));
  assert.equal(new Set(ids).size, 100);
});
