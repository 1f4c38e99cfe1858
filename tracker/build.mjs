// Makes dist/: ESM with its types for bundlers, one IIFE for a <script> tag, which must fit its size budget, and the
// words for developers.
import { execFileSync } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { minify } from "terser";

const BUDGET = 2192;

process.chdir(fileURLToPath(new URL(".", import.meta.url)));
rmSync("dist", { recursive: true, force: true });
mkdirSync("dist");
execFileSync("node_modules/.bin/tsc", ["--emitDeclarationOnly"], { stdio: "inherit" });
await build({ entryPoints: ["src/index.ts"], bundle: true, format: "esm", target: "es2019", outfile: "dist/index.js" });
await build({ entryPoints: ["src/debug.ts"], bundle: true, minify: true, format: "iife", target: "es2019", charset: "ascii", outfile: "dist/usage.debug.js" });

// esbuild joins the files, terser shrinks them. The wrapper function stays (no `toplevel`): inside it no name is global.
const bundled = await build({ entryPoints: ["src/script.ts"], bundle: true, format: "iife", target: "es2019", write: false });
const joined = ["createQueue", "createSender"].reduce(inlined, bundled.outputFiles[0].text.replace('"use strict";', ""));
// One kind of declaration compresses better than two.
const { code } = await minify(joined.replace(/\b(const|var) /g, "let "), {
  ecma: 2019,
  compress: { passes: 5, inline: 0, unsafe_arrows: true, unsafe_methods: true, pure_getters: true, booleans_as_integers: true, keep_fargs: false },
  format: { ascii_only: true },
});
writeFileSync("dist/usage.min.js", code);

const size = gzipSync(code, { level: 9 }).length;
console.log(`usage.min.js: ${size} of ${BUDGET} bytes at gzip -9 (${code.length} plain)`);
if (size > BUDGET) {
  console.error("over the size budget");
  process.exit(1);
}

/**
 * Puts the body of a function that is called once in the place of the call: terser does so only where nothing is
 * block-scoped. Its parameters are named as what the caller gives, or there is one. A name used twice fails in terser.
 */
function inlined(code, name) {
  const definition = new RegExp(`  var ${name} = \\((.*)\\) => {\\n([^]*?)\\n    return ({ .* });\\n  };\\n`);
  const [, parameters, body, results] = definition.exec(code);
  const call = new RegExp(`const ${results} = ${name}\\((.*)\\);`);
  const [, given] = call.exec(code);
  const parameter = given === parameters ? "" : `const ${parameters} = ${given};\n`;
  return code.replace(definition, "").replace(call, () => parameter + body);
}
