import { render } from "preact";
import { connect } from "./api";
import { App } from "./App";
import { Boundary } from "./Boundary";

const root = document.getElementById("app")!;
root.replaceChildren();
render(
  <Boundary>
    <App client={connect()} />
  </Boundary>,
  root,
);
