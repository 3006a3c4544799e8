//! What would hold up the thread that answers everybody (tokenising, templates, files) is done on threads of its own, so many at a time.

use std::sync::Arc;

use axum::http::StatusCode;
use tokio::sync::Semaphore;

use super::error::ApiError;

/// A bounded number of seats, and a line before them.
pub struct Desk {
    seats: Arc<Semaphore>,
    /// Those who wait, and those who sit.
    line: Arc<Semaphore>,
}

impl Desk {
    /// So many at a time, while anybody may wait.
    pub fn new(seats: usize) -> Self {
        Self { seats: Arc::new(Semaphore::new(seats)), line: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)) }
    }

    /// So many at a time, and so many who wait.
    pub fn with_line(seats: usize, waiting: usize) -> Self {
        Self { seats: Arc::new(Semaphore::new(seats)), line: Arc::new(Semaphore::new(seats + waiting)) }
    }

    /// Does this when a seat is free. The seat is held until it is done, even where its client has left meanwhile.
    ///
    /// # Errors
    /// As many wait as may; the work's own.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let place = self.line.clone().try_acquire_owned().map_err(|_| full())?;
        let seat = self.seats.clone().acquire_owned().await.map_err(|_| full())?;
        let work = tokio::task::spawn_blocking(move || {
            let _held = (place, seat);
            work()
        });
        work.await.map_err(|error| ApiError::of(&bd3::Error::Run(error.to_string())))?
    }
}

/// As many wait as may.
pub fn full() -> ApiError {
    let message = "the server is busy with other requests of this kind";
    ApiError::coded(StatusCode::TOO_MANY_REQUESTS, "queue_full", message)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::Duration;

    use futures_util::future::{join, join_all};

    use super::*;

    /// How many of these were let in, and how many of them were at work at once.
    fn crowd(desk: &Desk, count: usize) -> (usize, usize) {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let all_came = Arc::new(AtomicBool::new(false));
        let work = |_| {
            let (now, most, all_came) = (now.clone(), most.clone(), all_came.clone());
            desk.blocking(move || {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                while !all_came.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                std::thread::sleep(Duration::from_millis(5));
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            })
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let last = async { all_came.store(true, Ordering::SeqCst) };
        let (done, ()) = runtime.block_on(join(join_all((0..count).map(work)), last));
        let refused = done.iter().filter_map(|done| done.as_ref().err());
        assert!(refused.into_iter().all(|error| error.status == StatusCode::TOO_MANY_REQUESTS));
        (done.iter().filter(|done| done.is_ok()).count(), most.load(Ordering::SeqCst))
    }

    #[test]
    fn no_more_are_at_work_or_wait_than_may() {
        let (done, at_once) = crowd(&Desk::new(3), 20);
        assert!(done == 20 && at_once <= 3, "{done} done, {at_once} at once");
        assert_eq!(crowd(&Desk::with_line(1, 4), 20), (5, 1));
        // Whoever left has left his place.
        let desk = Desk::with_line(1, 0);
        assert_eq!((crowd(&desk, 1), crowd(&desk, 1)), ((1, 1), (1, 1)));
    }

    #[test]
    fn work_that_panics_is_an_error_and_frees_its_seat() {
        let desk = Desk::with_line(1, 0);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let failed = runtime.block_on(desk.blocking(|| -> Result<(), ApiError> { panic!("on purpose") }));
        assert_eq!(failed.unwrap_err().status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(crowd(&desk, 1), (1, 1));
    }
}
