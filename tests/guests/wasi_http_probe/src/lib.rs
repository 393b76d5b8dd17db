//! Makes the request in `context.fetch` of a message by wasi:http, and returns the response in the reason of a denial. With
//! `context.then` "leave" it does not wait for the response, with "leak" it keeps all handles, and with "hoard" it creates and
//! keeps headers forever.

mod bindings {
    wit_bindgen::generate!({
        path: ["../../../wit/deps/io", "../../../wit/deps/clocks", "wit/http.wit", "wit/world.wit"],
        world: "openedx:ace-wasi-http-probe/probe",
        generate_all,
    });
}

use ace_plugin::Message;
use ace_plugin::policy::{Policy, PolicyResult};

use bindings::wasi::http::outgoing_handler::handle;
use bindings::wasi::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingResponse, Method, OutgoingBody, OutgoingRequest, Scheme,
};
use bindings::wasi::io::streams::StreamError;

struct WasiHttpProbe;

ace_plugin::export_policy!(WasiHttpProbe);

impl Policy for WasiHttpProbe {
    fn check(message: &Message) -> Result<PolicyResult, String> {
        let then: Option<String> = message.context("/then")?;
        let found = match then.as_deref() {
            Some("leave") => begin(message)?.map(|_| "left".to_owned()),
            Some("leak") => {
                for _ in 0..message.context("/fetch/times")?.unwrap_or(1) {
                    match begin(message)? {
                        Ok(future) => {
                            future.subscribe().block();
                            std::mem::forget(future.get());
                            std::mem::forget(future);
                        }
                        Err(code) => return Ok(denial(code.to_string())),
                    }
                }
                Ok("leaked".to_owned())
            }
            Some("hoard") => loop {
                std::mem::forget(Fields::new());
            },
            _ => begin(message)?.and_then(wait).and_then(|response| read(&response)),
        };
        Ok(denial(found.unwrap_or_else(|code| code.to_string())))
    }
}

fn denial(reason: String) -> PolicyResult {
    PolicyResult::pass().deny("email", reason)
}

fn begin(message: &Message) -> Result<Result<FutureIncomingResponse, ErrorCode>, String> {
    let text = |key: &str| message.context::<String>(&format!("/fetch/{key}"));
    let headers: Vec<(String, String)> = message.context("/fetch/headers")?.unwrap_or_default();
    let headers: Vec<_> = headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
    let headers = Fields::from_list(&headers).map_err(|e| e.to_string())?;
    let request = OutgoingRequest::new(headers);
    let method = match text("method")? {
        Some(name) => Method::Other(name),
        None => Method::Get,
    };
    let scheme = match text("scheme")?.as_deref() {
        Some("http") => Scheme::Http,
        _ => Scheme::Https,
    };
    let refused = |what: &'static str| move |()| format!("{what} was refused");
    request.set_method(&method).map_err(refused("method"))?;
    request.set_scheme(Some(&scheme)).map_err(refused("scheme"))?;
    request.set_authority(text("authority")?.as_deref()).map_err(refused("authority"))?;
    request.set_path_with_query(text("path")?.as_deref()).map_err(refused("path"))?;
    let body = request.body().map_err(refused("body"))?;
    let future = match handle(request, None) {
        Ok(future) => future,
        Err(code) => return Ok(Err(code)),
    };
    if let Some(content) = text("body")? {
        let stream = body.write().map_err(refused("stream"))?;
        for piece in content.as_bytes().chunks(4096) {
            stream.blocking_write_and_flush(piece).map_err(|e| e.to_string())?;
        }
    }
    Ok(OutgoingBody::finish(body, None).map(|()| future))
}

fn wait(future: FutureIncomingResponse) -> Result<IncomingResponse, ErrorCode> {
    future.subscribe().block();
    future.get().expect("it is ready").expect("it is taken once")
}

fn read(response: &IncomingResponse) -> Result<String, ErrorCode> {
    let body = response.consume().expect("it is consumed once");
    let stream = body.stream().expect("it is taken once");
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(1 << 20) {
            Ok(piece) => bytes.extend(piece),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(e)) => return Ok(format!("broke: {}", e.to_debug_string())),
        }
    }
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(100)]);
    Ok(format!("{} {} bytes: {shown}", response.status(), bytes.len()))
}
