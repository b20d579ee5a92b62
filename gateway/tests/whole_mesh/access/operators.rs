//! What operators ask of a process, and what processes ask of each other's logs.

use std::time::Duration;

use serde_json::{Value, json};

use super::stage::{Case, Stage, name};

/// How long it may take until what cannot be taken in is parked.
const PATIENCE: Duration = Duration::from_secs(10);

fn operator(rpc: &str) -> String {
    format!("ordermesh.operator.v1.{rpc}")
}

impl Stage {
    pub async fn operator_case(&self, service: &str, rpc: &str) -> Option<Case> {
        let request = match (service, rpc) {
            ("ordermesh.events.v1.EventLogService", "GetHead" | "Subscribe")
            | ("ordermesh.operator.v1.OutboxService", "GetBacklog")
            | ("ordermesh.operator.v1.AuditExportService", "Export") => json!({}),
            ("ordermesh.operator.v1.SagasService", rpc) => self.saga_case(rpc).await?,
            ("ordermesh.operator.v1.DeadLettersService", rpc) => self.dead_letter_case(rpc).await?,
            _ => return None,
        };
        Some(self.anyones(request))
    }

    async fn saga_case(&self, rpc: &str) -> Option<Value> {
        if rpc == "ListSagas" {
            return Some(json!({"pageSize": 1}));
        }
        // One that waits, for its customer.
        let key = json!({"key": self.short().await["name"]});
        let sagas = self.as_admin(&operator("SagasService.ListSagas"), &key).await;
        let saga = name(&sagas["sagas"][0]);
        let because = json!({"name": saga, "reason": "a test"});
        Some(match rpc {
            "GetSaga" => json!({"name": saga}),
            "RetrySagaStep" | "PauseSaga" => because,
            "ResumeSaga" => {
                self.as_admin(&operator("SagasService.PauseSaga"), &because).await;
                because
            }
            _ => return None,
        })
    }

    async fn dead_letter_case(&self, rpc: &str) -> Option<Value> {
        Some(match rpc {
            "ListDeadLetters" | "ReplayDeadLetters" => json!({}),
            "GetDeadLetter" => json!({"name": self.parked().await}),
            "DiscardDeadLetter" => json!({"name": self.parked().await, "reason": "a test"}),
            _ => return None,
        })
    }

    /// What `notifications` could not take in.
    async fn parked(&self) -> String {
        let parked = async {
            loop {
                for state in ["STATE_PARKED", "STATE_DISCARDED"] {
                    let state = json!({"state": state});
                    let list = operator("DeadLettersService.ListDeadLetters");
                    let letters = self.as_admin(&list, &state).await;
                    if let Some(letter) = letters["deadLetters"].get(0) {
                        return name(letter);
                    }
                }
            }
        };
        tokio::time::timeout(PATIENCE, parked).await.expect("nonsense is parked")
    }
}
