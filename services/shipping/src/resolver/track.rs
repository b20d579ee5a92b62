//! What the carrier reports by itself: taken in once, then acknowledged.

use std::{collections::BTreeMap, time::Duration};

use futures_util::StreamExt as _;
use mesh::app::Draining;
use uuid::Uuid;

use super::{PAUSE, Resolver, background};
use crate::{
    carrier::{News, Silent},
    domain::shipment_of,
    error::Error,
};

/// How many reports are asked for at once, and on how many shipments is worked at a time.
const LIMIT: u32 = 256;
const AT_ONCE: usize = 16;

/// The longest that nobody asks for news that come unannounced.
const IDLE: Duration = Duration::from_secs(1);

// === impl Resolver ===

impl Resolver {
    /// Takes in what the carrier reports, until the process leaves.
    ///
    /// # Errors
    /// None: what fails is tried again.
    pub async fn track(self, draining: Draining) -> anyhow::Result<()> {
        while !draining.is_draining() {
            let pause = match self.collect().await {
                Ok(0) => IDLE,
                // There may be more.
                Ok(_) => continue,
                Err(error) => {
                    let causes = mesh::status::with_causes(&error);
                    tracing::warn!("cannot take in what the carrier reports: {causes}");
                    PAUSE
                }
            };
            tokio::select! {
                () = draining.begun() => {}
                () = self.carrier.called() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        Ok(())
    }

    /// Takes in what the carrier has to report; how many reports there were.
    ///
    /// # Errors
    /// The carrier or the database failed. What was not acknowledged comes again.
    pub async fn collect(&self) -> Result<usize, Error> {
        let news = self.carrier.news(LIMIT).await.map_err(Silent::into_failure)?;
        // Those of one shipment one after the other, in the order in which they come.
        let mut by_parcel: BTreeMap<String, Vec<News>> = BTreeMap::new();
        for one in news {
            by_parcel.entry(one.parcel.clone()).or_default().push(one);
        }
        let ids: Vec<Uuid> = by_parcel.keys().filter_map(|parcel| shipment_of(parcel)).collect();
        let traces = &self.store.traces(&ids).await?;
        let taken: Vec<Result<Vec<String>, Error>> = futures_util::stream::iter(by_parcel)
            .map(|(parcel, news)| async move {
                let Some(id) = shipment_of(&parcel) else {
                    tracing::error!("the carrier reports of `{parcel}`, which is not ours");
                    return Ok(news.into_iter().map(|one| one.id).collect());
                };
                let trace = traces.get(&id).map(String::as_str);
                let work = background("track", trace, self.taken(id, news));
                work.await.unwrap_or(Err(Error::Cut(None)))
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let mut failed = None;
        let mut done = Vec::new();
        for one in taken {
            match one {
                Ok(ids) => done.extend(ids),
                Err(error) => failed = Some(error),
            }
        }
        self.carrier.acknowledge(&done).await.map_err(Silent::into_failure)?;
        failed.map_or(Ok(done.len()), Err)
    }

    async fn taken(&self, id: Uuid, news: Vec<News>) -> Result<Vec<String>, Error> {
        let mut done = Vec::new();
        for one in news {
            let event = one.id.clone();
            match self.store.take_in(id, one).await {
                Ok(()) => {}
                // It will not be there next time either.
                Err(Error::NotFound(_)) => {
                    tracing::error!(shipment.id = %id, "the carrier reports of shipments/{id}, which does not exist");
                }
                Err(error) => return Err(error),
            }
            done.push(event);
        }
        Ok(done)
    }
}
