// Prints why the schemas of the packages refuse objects. The file named by the argument is a list of
// [module, class, object].
import { readFileSync } from "node:fs";

for (const [module, name, object] of JSON.parse(readFileSync(process.argv[2], "utf8"))) {
  const model = new (await import(module))[name](object);
  try {
    model.validate();
  } catch (error) {
    console.log(`${name} ${object.metadata.name}: ${error.message}`);
  }
}
