//! Who may ask: a key, where one is set; without one only this machine, by a name that is its own, so that a page elsewhere cannot
//! reach the server through a name that it has bent to this machine.

use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::{Method, StatusCode};
use subtle::ConstantTimeEq;

use super::error::ApiError;
use super::page;

/// See the module.
pub struct Guard {
    key: Option<String>,
    /// Only names of this machine are answered.
    own_names: bool,
    origins: Vec<String>,
}

impl Guard {
    /// `loopback`: nobody else can reach the address.
    pub fn new(key: Option<String>, loopback: bool, origins: Vec<String>) -> Self {
        Self { own_names: loopback && key.is_none(), key, origins }
    }

    /// Refuses a request that may not be made.
    pub fn check(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), ApiError> {
        if self.own_names {
            self.check_host(headers)?;
        }
        match &self.key {
            Some(key) if !is_open(path) && method != Method::OPTIONS => check_key(key, headers),
            _ => Ok(()),
        }
    }

    fn check_host(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => host,
        };
        let ip = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        if name.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback()) {
            return Ok(());
        }
        let message =
            format!("this server answers as localhost only, not as {host:?} (bd3 serve --api-key lifts that)");
        Err(ApiError::coded(StatusCode::FORBIDDEN, "wrong_host", message))
    }

    /// The header that lets a page of another origin read an answer, where that is allowed.
    pub fn cors(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        self.origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()).then(|| origin.clone())
    }
}

/// The page, what can be asked, and that there is a server, are no secrets; all else is.
fn is_open(path: &str) -> bool {
    matches!(path, "/" | "/health" | "/openapi.json") || path.strip_prefix('/').is_some_and(page::has)
}

fn check_key(key: &str, headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer ")).map(str::trim);
    match given {
        Some(given) if bool::from(given.as_bytes().ct_eq(key.as_bytes())) => Ok(()),
        found => {
            let found = if found.is_some() { "another one" } else { "none" };
            let message = format!("expected the server's key as `Authorization: Bearer KEY`, found {found}");
            Err(ApiError::coded(StatusCode::UNAUTHORIZED, "invalid_api_key", message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(guard: &Guard, path: &str, headers: &[(header::HeaderName, &'static str)]) -> Option<StatusCode> {
        let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
        guard.check(&Method::POST, path, &headers).err().map(|error| error.status)
    }

    #[test]
    fn without_a_key_only_this_machine_by_its_own_name() {
        let guard = Guard::new(None, true, Vec::new());
        for host in ["localhost:8333", "LocalHost", "127.0.0.1:1", "[::1]:8333", "localhost", "127.0.0.1"] {
            assert_eq!(ask(&guard, "/v1/models", &[(header::HOST, host)]), None, "{host}");
        }
        for host in ["evil.example:8333", "", "localhost.evil.example", "192.168.1.2:8333"] {
            assert_eq!(ask(&guard, "/v1/models", &[(header::HOST, host)]), Some(StatusCode::FORBIDDEN), "{host}");
        }
    }

    #[test]
    fn with_a_key_only_who_knows_it() {
        let guard = Guard::new(Some("secret".into()), true, Vec::new());
        let auth = header::AUTHORIZATION;
        assert_eq!(ask(&guard, "/v1/models", &[(auth.clone(), "Bearer secret")]), None);
        for wrong in ["Bearer secre", "Bearer secrets", "secret", "Basic secret", "Bearer "] {
            assert_eq!(ask(&guard, "/v1/models", &[(auth.clone(), wrong)]), Some(StatusCode::UNAUTHORIZED), "{wrong}");
        }
        assert_eq!(ask(&guard, "/bd3/noise", &[]), Some(StatusCode::UNAUTHORIZED));
        for open in ["/", "/health", "/openapi.json", "/main.js", "/index.html", "/style.css"] {
            assert_eq!(ask(&guard, open, &[]), None, "{open}");
        }
        // Also what is not there yet.
        for closed in
            ["/metrics", "/bd3", "/v2/models", "/health/", "/healthy", "//", "/main.js/x", "/x.js", "main.js", ""]
        {
            assert_eq!(ask(&guard, closed, &[]), Some(StatusCode::UNAUTHORIZED), "{closed}");
        }
        let preflight = guard.check(&Method::OPTIONS, "/v1/models", &HeaderMap::new());
        assert!(preflight.is_ok());
    }
}
