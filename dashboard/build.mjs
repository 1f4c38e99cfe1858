// Makes dist/: three files for any static host. The settings stand in index.html alone: taken from the environment
// where they are set, else left as %NAMES% for whoever serves the page to fill in.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const BUDGET = 160 * 1024;
const SETTINGS = ["SUPABASE_URL", "SUPABASE_PUBLISHABLE_KEY", "BILLING_CONTACT", "TRACKER_URL"];

process.chdir(fileURLToPath(new URL(".", import.meta.url)));

let page = readFileSync("src/index.html", "utf8");
for (const name of SETTINGS) {
  const value = process.env[name]?.trim();
  if (!value) continue;
  if (/[\s"'<>;,]/.test(value)) fail(`${name}: must have no spaces, quotes, commas or semicolons`);
  if (name === "SUPABASE_URL" && !URL.canParse(value)) fail(`${name}: must be a URL, such as https://YOUR-REF.supabase.co`);
  if (name === "BILLING_CONTACT" && !/^(https:\/\/.|[^@/?&]+@[^@/?&]+$)/.test(value)) fail(`${name}: must be an e-mail address or an https:// address`);
  if (name === "TRACKER_URL" && !URL.canParse(value, "https://page.example")) fail(`${name}: must be the address of usage.min.js`);
  if (/^sb_secret_/.test(value) || roleOf(value) === "service_role") fail(`${name}: is a secret key; take the publishable one`);
  page = page.replaceAll(`%${name}%`, () => (name === "SUPABASE_URL" ? new URL(value).origin : value));
}

rmSync("dist", { recursive: true, force: true });
mkdirSync("dist");
await build({
  absWorkingDir: process.cwd(), // not the folder from which this was called
  entryPoints: { dashboard: "src/main.tsx", style: "src/style.css" },
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  jsx: "automatic",
  jsxImportSource: "preact",
  outdir: "dist",
  legalComments: "none",
});
writeFileSync("dist/index.html", page);

const size = gzipSync(readFileSync("dist/dashboard.js"), { level: 9 }).length;
console.log(`dashboard.js: ${size} of ${BUDGET} bytes at gzip -9`);
if (size > BUDGET) fail("over the size budget");

function roleOf(key) {
  try {
    return JSON.parse(Buffer.from(key.split(".")[1], "base64url").toString()).role;
  } catch {
    return undefined;
  }
}

function fail(message) {
  console.error(message);
  process.exit(1);
}
