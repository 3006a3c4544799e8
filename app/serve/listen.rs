//! Connections: accepted, held to their time, and ended in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;

use super::{Served, routes};

/// Connections at once, at most.
const CONNECTIONS: usize = 1024;
/// The head of a request must come within this time.
const HEAD: Duration = Duration::from_secs(15);
/// A client that takes nothing for so long is gone.
const STALL: Duration = Duration::from_secs(60);
/// Answers under way have so long to come to their end.
const GRACE: Duration = Duration::from_secs(3);
/// And so long again to be told, once they end where they are.
const LAST: Duration = Duration::from_secs(2);
/// How often a request to stop is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// Listens and answers until `asked`; then no more requests are taken, and those under way may end. `ready` hears the address.
pub async fn until(
    served: &Arc<Served>,
    address: SocketAddr,
    ready: impl FnOnce(SocketAddr),
    asked: impl Fn() -> bool,
) -> bd3::Result<()> {
    let failed = |e: std::io::Error| bd3::Error::value("--port", "an address that is free", format!("{address}: {e}"));
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    ready(listener.local_addr().map_err(failed)?);
    let (graceful, seats) = (GracefulShutdown::new(), Arc::new(Semaphore::new(CONNECTIONS)));
    let router = routes::router(served);
    let mut look = tokio::time::interval(LOOK);
    while !asked() {
        let stream = tokio::select! {
            stream = listener.accept() => stream,
            _ = look.tick() => continue,
        };
        let Ok((stream, _)) = stream else {
            // No more files may be open: until others are closed it would fail again at once.
            tokio::time::sleep(LOOK).await;
            continue;
        };
        // Without a seat the connection is closed at once.
        let Ok(seat) = seats.clone().try_acquire_owned() else { continue };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .serve_connection(TokioIo::new(timed(stream)), TowerToHyperService::new(router.clone()));
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            let _ = connection.await;
            drop(seat);
        });
    }
    drop(listener);
    served.queue.close();
    served.curve.stop();
    let mut end = std::pin::pin!(graceful.shutdown());
    if tokio::time::timeout(GRACE, &mut end).await.is_err() {
        served.hurry();
        let _ = tokio::time::timeout(LAST, end).await;
    }
    Ok(())
}

fn timed(stream: TcpStream) -> std::pin::Pin<Box<TimeoutStream<TcpStream>>> {
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(STALL));
    Box::pin(stream)
}
