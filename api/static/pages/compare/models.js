// The models and versions that a request can name, as suggestions for the columns' fields.

import { getJson } from "../../lib/api.js";
import { h } from "../../lib/dom.js";

/**
 * Return `{names, options}`: the names of all models, and an `option` for each name and version.
 *
 * Only keys of the tenant admin may list versions; without one, the options are names alone.
 */
export async function loadModels(signal) {
  const [models, adapters] = await Promise.all([
    getJson("v1/models", { signal }),
    getJson("v1/adapters", { signal }).catch(() => ({ data: [] })),
  ]);
  const versions = new Map(adapters.data.map((adapter) => [adapter.id, adapter]));
  const names = models.data.map((model) => model.id);
  const options = models.data.flatMap((model) => [
    h("option", { value: model.id }, model.parent === null ? "base model" : "current version"),
    ...versionsOf(versions.get(model.id)).map(([version, label]) => h("option", { value: version }, label)),
  ]);
  return { names, options };
}

function versionsOf(adapter) {
  if (!adapter) return [];
  return [[adapter.version, "current version"], ...adapter.previous.map((each) => [each.version, "previous version"])];
}
