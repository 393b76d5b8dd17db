//! Examples for `/openapi.json`: one for each schema, parameter, body and response, so that requests that Swagger UI fills in can be
//! sent. They are in examples.json, and a test sends them to a server.

use serde_json::{Map, Value, json};

const EXAMPLES: &str = include_str!("examples.json");
const SCHEMAS: &str = "#/components/schemas/";

/// The description with its examples.
pub(super) fn with_examples(mut description: Value) -> Value {
    let examples: Value = serde_json::from_str(EXAMPLES).expect("examples.json is valid");
    for (path, item) in object(&mut description["paths"]) {
        for (method, operation) in object(item) {
            add(operation, &format!("{} {path}", method.to_uppercase()), &examples);
        }
    }
    for (name, schema) in object(&mut description["components"]["schemas"]) {
        schema["examples"] = json!([examples["schemas"][name]]);
    }
    description
}

fn add(operation: &mut Value, route: &str, examples: &Value) {
    for parameter in operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap_or_default().to_owned();
        let own = examples["parameters_of"][route].get(&name);
        parameter["example"] = own.unwrap_or(&examples["parameters"][&name]).clone();
    }
    if let Some(body) = operation.get_mut("requestBody") {
        fill(body, examples["bodies"].get(route), examples);
    }
    for (_, response) in object(&mut operation["responses"]) {
        fill(response, examples["answers"].get(route), examples);
    }
}

/// Adds the example of each content: that of its schema, or else the route's own. A list gets one item.
fn fill(described: &mut Value, own: Option<&Value>, examples: &Value) {
    let of = |schema: &Value| {
        let name = schema["$ref"].as_str().and_then(|at| at.strip_prefix(SCHEMAS))?;
        examples["schemas"].get(name).cloned()
    };
    let Some(contents) = described.get_mut("content") else { return };
    for (kind, content) in object(contents) {
        // The schema of an NDJSON body describes one line of it.
        let is_lines = kind.ends_with("ndjson");
        let schema = &content["schema"];
        let example = of(schema).or_else(|| of(&schema["items"]).map(|one| json!([one]))).filter(|_| !is_lines);
        if let Some(example) = example.or_else(|| own.cloned()) {
            content["example"] = example;
        }
    }
}

fn object(value: &mut Value) -> impl Iterator<Item = (&String, &mut Value)> {
    value.as_object_mut().map(Map::iter_mut).into_iter().flatten()
}
