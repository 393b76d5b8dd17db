//! The examples of `/openapi.json`, sent as Swagger UI would.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Server, home};

/// One operation with its examples.
struct Example {
    method: Method,
    route: String,
    operation: Value,
}

impl Example {
    fn all(described: &Value) -> Vec<Example> {
        let paths = described["paths"].as_object().expect("paths");
        let operations = paths.iter().flat_map(|(path, item)| {
            let methods = item.as_object().expect("methods").iter();
            methods.map(move |(method, operation)| Example {
                method: method.to_uppercase().parse().expect("a method"),
                route: path.clone(),
                operation: operation.clone(),
            })
        });
        operations.collect()
    }

    fn parameters(&self) -> impl Iterator<Item = &Value> {
        self.operation["parameters"].as_array().into_iter().flatten()
    }

    /// The media type and example of its body.
    fn body(&self) -> Option<(String, Value)> {
        let (kind, content) = self.operation["requestBody"]["content"].as_object()?.iter().next()?;
        Some((kind.clone(), content["example"].clone()))
    }

    /// Sends it. Returns the status of the response.
    async fn send(&self, server: &Server) -> StatusCode {
        let (mut path, mut query) = (self.route.clone(), url::form_urlencoded::Serializer::new(String::new()));
        let mut headers = Vec::new();
        for parameter in self.parameters() {
            let name = parameter["name"].as_str().expect("a name");
            let value = text(&parameter["example"]);
            match parameter["in"].as_str() {
                Some("path") => path = path.replace(&format!("{{{name}}}"), &value),
                Some("query") => drop(query.append_pair(name, &value)),
                _ => headers.push((name, value)),
            }
        }
        let query = query.finish();
        let url = if query.is_empty() { path } else { format!("{path}?{query}") };
        let mut request = server.bare(self.method.clone(), &url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if let Some((kind, body)) = self.body() {
            request = request.header("content-type", kind).body(text(&body));
        }
        request.send().await.expect("answered").status()
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[tokio::test]
async fn every_route_has_examples_that_are_accepted_unchanged() {
    let home = home("[events]\nkeep = true\n");
    let server = Server::start(&home);
    let (_, described) = server.get("/openapi.json").await;
    for (name, schema) in described["components"]["schemas"].as_object().expect("schemas") {
        assert!(!schema["examples"][0].is_null(), "the schema {name} has no example");
    }
    let mut examples = Example::all(&described);
    assert!(examples.len() > 25);
    for Example { route, operation, .. } in &examples {
        let bodies = operation["requestBody"]["content"].as_object().into_iter().flatten();
        let answers = operation["responses"].as_object().into_iter().flatten();
        let answers = answers.flat_map(|(_, answer)| answer["content"].as_object().into_iter().flatten());
        for (kind, content) in bodies.chain(answers) {
            assert!(!content["example"].is_null(), "{route}: {kind} has no example");
        }
        assert!(operation.get("parameters").is_none_or(Value::is_array), "{route}");
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            assert!(!parameter["example"].is_null(), "{route}: {} has no example", parameter["name"]);
        }
    }

    // A message with that uuid, which the example lets the server choose.
    let handing_in =
        examples.iter().find(|e| e.route == "/v1/messages" && e.method == Method::POST).expect("it is there");
    let (_, mut message) = handing_in.body().expect("a body");
    let uuid = examples.iter().find(|e| e.route == "/v1/messages/{uuid}").expect("it is there");
    message["uuid"] = uuid.parameters().next().expect("its uuid")["example"].clone();
    assert_eq!(server.send(&message).await["state"], json!("sent"), "the templates get what they need");

    // Operations that create something come first, and those that remove something last.
    let takes_away = |e: &Example| e.method == Method::DELETE || e.route == "/v1/erase";
    examples.sort_by_key(|e| (e.body().is_none(), e.method != Method::GET, takes_away(e)));
    for example in &examples {
        let status = example.send(&server).await;
        // A message that has been sent cannot be cancelled or retried.
        assert!(
            status.is_success() || status == StatusCode::CONFLICT,
            "{} {}: {status}",
            example.method,
            example.route
        );
    }
}
