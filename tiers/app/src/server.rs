//! The server: from a connection to a handler, and its end.

use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::available_parallelism;
use std::time::Instant;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::api::{clock, compute, health, metrics, order, product, search, stats};
use crate::config::Config;
use crate::error::ShopError;
use crate::server_timing::{Part, SERVER_TIMING, ServerTiming};
use crate::shop::Shop;

/// An order of the most items is smaller.
const LARGEST_BODY: usize = 64 << 10;

/// Serves until SIGTERM or SIGINT, and then what is under way.
///
/// # Errors
/// The address is taken, or the options contradict the host.
pub fn run(config: Config) -> Result<()> {
    // What computes gets as many threads as there are processors: more would only take turns.
    let processors = available_parallelism().map_or(1, usize::from);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().max_blocking_threads(processors).build();
    runtime.context("start the runtime")?.block_on(serve(config))
}

async fn serve(config: Config) -> Result<()> {
    let shop = Arc::new(Shop::new(&config)?);
    let mut terminate = signal(SignalKind::terminate()).context("take SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("take SIGINT")?;
    let listener = TcpListener::bind(config.listen).await;
    let listener = listener.with_context(|| format!("listen at {}", config.listen))?;
    info!(address = %listener.local_addr().context("our address")?, "listening");
    tokio::spawn(shop.database.clone().invalidate(Arc::clone(&shop.cache)));

    let stop = Arc::new(Notify::new());
    let told = Arc::clone(&stop);
    let server = axum::serve(listener, router(&shop))
        .with_graceful_shutdown(async move { told.notified().await });
    let server = server.into_future();
    tokio::pin!(server);
    tokio::select! {
        ended = &mut server => return ended.context("serve"),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    shop.is_stopping.store(true, Ordering::Release);
    stop.notify_one();
    info!("stopping");
    match timeout(config.stop_timeout, server).await {
        Ok(ended) => ended.context("serve"),
        Err(_) => {
            warn!("requests were under way for too long and are dropped");
            Ok(())
        }
    }
}

fn router(shop: &Arc<Shop>) -> Router {
    let api = Router::new()
        .route("/api/compute", get(compute::compute))
        .route("/api/products", get(search::search))
        .route("/api/products/{id}", get(product::get))
        .route("/api/orders", post(order::place))
        .route("/api/orders/{id}", get(order::get))
        .route("/api/stats", get(stats::stats))
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .layer(middleware::from_fn_with_state(Arc::clone(shop), answer));
    Router::new()
        .route("/health", get(health::live))
        .route("/ready", get(health::ready))
        .route("/metrics", get(metrics::metrics))
        .route("/clock", get(clock::clock))
        .merge(api)
        .with_state(Arc::clone(shop))
}

/// Gives a request its turn, its time limit and its `Server-Timing`, and counts its answer.
async fn answer(State(shop): State<Arc<Shop>>, mut request: Request, next: Next) -> Response {
    let (began, arrived) = (Instant::now(), clock::now());
    let method = known(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let timing = ServerTiming::new();
    request.extensions_mut().insert(timing.clone());
    let mut response = match timing.measure(Part::Queue, shop.admission.enter()).await {
        Ok(_turn) => timeout(shop.request_timeout, next.run(request))
            .await
            .unwrap_or_else(|_| ShopError::TimedOut.into_response()),
        Err(busy) => busy.into_response(),
    };
    let took = began.elapsed();
    response.headers_mut().insert(SERVER_TIMING, timing.header(took));
    response.headers_mut().insert(clock::ARRIVED, arrived.into());
    let route = route.as_ref().map_or("", MatchedPath::as_str);
    shop.metrics.count(method, route, response.status(), took);
    response
}

/// Clients may invent methods, which are not to become names of counters.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        _ => "other",
    }
}
