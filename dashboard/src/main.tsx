import { render } from "preact";
import { connect } from "./api";
import { App } from "./App";
import { Boundary } from "./Boundary";
import { readMailLink } from "./link";

const root = document.getElementById("app")!;
root.replaceChildren();
// Read before the client takes the session out of the address; a problem is shown once.
const link = readMailLink(location.hash);
const client = connect();
if (link.kind === "problem") history.replaceState(null, "", location.pathname);
render(
  <Boundary>
    <App client={client} link={link} />
  </Boundary>,
  root,
);
