import { render } from "preact";
import { connect } from "./api";
import { App } from "./App";

const root = document.getElementById("app")!;
root.replaceChildren();
render(<App client={connect()} />, root);
