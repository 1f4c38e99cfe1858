// Makes dist/: ESM with its types for bundlers, and one IIFE for a <script> tag, which must fit its size budget.
import { execFileSync } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { minify } from "terser";

const BUDGET = 2400;

/** Property names that never leave the bundle; everything else is API, wire or browser. */
const INTERNAL = /^(enqueue|adopt|nextBatch|settle)$/;

process.chdir(fileURLToPath(new URL(".", import.meta.url)));
rmSync("dist", { recursive: true, force: true });
mkdirSync("dist");
execFileSync("node_modules/.bin/tsc", ["--emitDeclarationOnly"], { stdio: "inherit" });
await build({ entryPoints: ["src/index.ts"], bundle: true, format: "esm", target: "es2019", outfile: "dist/index.js" });

// esbuild joins the files, terser shrinks them. The wrapper function stays (no `toplevel`): inside it no name is global.
const bundled = await build({
  entryPoints: ["src/script.ts"],
  bundle: true,
  format: "iife",
  target: "es2019",
  minifySyntax: true,
  write: false,
});
const { code } = await minify(bundled.outputFiles[0].text.replace('"use strict";', ""), {
  ecma: 2019,
  compress: { passes: 5, unsafe_arrows: true, unsafe_methods: true, pure_getters: true, booleans_as_integers: true, keep_fargs: false },
  mangle: { properties: { regex: INTERNAL, builtins: true } },
  format: { ascii_only: true },
});
writeFileSync("dist/usage.min.js", code);

const size = gzipSync(code, { level: 9 }).length;
console.log(`usage.min.js: ${size} of ${BUDGET} bytes at gzip -9 (${code.length} plain)`);
if (size > BUDGET) {
  console.error("over the size budget");
  process.exit(1);
}
