//! Which path leads where, and what every request has in common: who may ask, how large a body may be, how long it may take to come.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::{self, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::StreamExt;
use serde_json::{Value, json};

use super::error::ApiError;
use super::{Served, completions, curve, extras, openapi, page, race};

/// A body must come within this time.
const BODY: Duration = Duration::from_secs(15);

/// All routes.
pub fn router(served: &Arc<Served>) -> Router {
    Router::new()
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(one_model))
        .route("/v1/completions", post(completions::completions))
        .route("/v1/chat/completions", post(completions::chat))
        .route("/bd3/model", get(extras::model))
        .route("/bd3/tokenize", post(extras::tokenize))
        .route("/bd3/noise", post(extras::noise))
        .route("/bd3/race", post(race::race))
        .route("/bd3/curve", get(curve::stands).post(curve::measure))
        .route("/openapi.json", get(openapi::document))
        .route("/", get(page::index))
        .route("/{name}", get(page::file))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .method_not_allowed_fallback(wrong_method)
        .fallback(nothing)
        .layer(middleware::from_fn_with_state(served.clone(), around))
        .with_state(served.clone())
}

/// Around every request.
async fn around(State(served): State<Arc<Served>>, request: Request, next: Next) -> Response {
    let cors = served.guard.cors(request.headers());
    // Clients send headers of their own.
    let asked = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let mut response = match admit(&served, request).await {
        Ok(Some(request)) => next.run(request).await,
        // A preflight.
        Ok(None) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => error.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(origin) = cors {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
        let allowed = asked.unwrap_or(HeaderValue::from_static("authorization, content-type"));
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    }
    served.metrics.answer(response.status());
    response
}

/// Refuses what may not come in; reads the body.
async fn admit(served: &Served, request: Request) -> Result<Option<Request>, ApiError> {
    let (parts, body) = request.into_parts();
    served.guard.check(&parts.method, parts.uri.path(), &parts.headers)?;
    if parts.method == Method::OPTIONS {
        return Ok(None);
    }
    if parts.method != Method::POST {
        return Ok(Some(Request::from_parts(parts, Body::empty())));
    }
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        let message = format!("content-type: expected application/json, found {kind:?}");
        return Err(ApiError::coded(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", message));
    }
    let body = read(body, served.limits.body).await?;
    Ok(Some(Request::from_parts(parts, Body::from(body))))
}

async fn read(body: Body, most: usize) -> Result<Bytes, ApiError> {
    tokio::time::timeout(BODY, collect(body, most)).await.unwrap_or_else(|_| {
        let message = format!("the body did not come within {} seconds", BODY.as_secs());
        Err(ApiError::coded(StatusCode::REQUEST_TIMEOUT, "timeout", message))
    })
}

async fn collect(body: Body, most: usize) -> Result<Bytes, ApiError> {
    let (mut pieces, mut all) = (body.into_data_stream(), Vec::new());
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| ApiError::refused(format!("the body broke off: {error}")))?;
        if all.len() + piece.len() > most {
            let message = format!("the body: expected at most {} KB (--body-kb), found more", most >> 10);
            return Err(ApiError::coded(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message));
        }
        all.extend_from_slice(&piece);
    }
    Ok(all.into())
}

/// Nothing is there.
pub fn no_path(path: &str) -> ApiError {
    ApiError::coded(StatusCode::NOT_FOUND, "unknown_path", format!("no such path: {path}"))
}

/// A path that is no UTF-8.
pub fn not_spelled(error: &PathRejection) -> ApiError {
    ApiError::refused(format!("the path: {}", error.body_text()))
}

async fn nothing(request: Request) -> ApiError {
    no_path(request.uri().path())
}

async fn wrong_method(request: Request) -> ApiError {
    let message = format!("{} is not a method of {}", request.method(), request.uri().path());
    ApiError::coded(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", message)
}

fn model(served: &Served) -> Value {
    let arch = &served.model.checkpoint.arch;
    json!({
        "id": served.name, "object": "model", "created": 0, "owned_by": "bd3",
        "bd3": { "block": arch.block, "block_sizes": arch.block_sizes(), "length": arch.length, "chat": served.template.is_some() },
    })
}

async fn models(State(served): State<Arc<Served>>) -> Json<Value> {
    Json(json!({ "object": "list", "data": [model(&served)] }))
}

async fn one_model(
    State(served): State<Arc<Served>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    let Path(name) = name.map_err(|error| not_spelled(&error))?;
    served.check_model(Some(&name))?;
    Ok(Json(model(&served)))
}

async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

async fn metrics(State(served): State<Arc<Served>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], served.metrics.text())
}
