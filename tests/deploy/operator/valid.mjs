// A manifest of the Prometheus operator's, as JSON on standard input: ends with 1, and says why, unless its types have it.

import { readFileSync } from "node:fs";
import * as types from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";

const manifest = JSON.parse(readFileSync(0, "utf8"));
const Type = types[manifest.kind];
if (Type === undefined || Type.apiVersion !== manifest.apiVersion) {
  console.error(`there is no ${manifest.apiVersion} ${manifest.kind}`);
  process.exit(1);
}
try {
  new Type(manifest).validate();
} catch (refused) {
  console.error(refused.message);
  process.exit(1);
}
