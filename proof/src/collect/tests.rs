use std::collections::BTreeMap;

use prost_types::{Struct, Value, value::Kind};
use proto::operator::v1::{
    ExportResponse,
    audit_export_service_server::{AuditExportService, AuditExportServiceServer},
};
use tonic::{Request, Response, Status, service::Routes};

use super::*;
use crate::world::sample;

/// Exports one row of `stock`, and knows `movement`, which is empty.
struct Inventory;

#[tonic::async_trait]
impl AuditExportService for Inventory {
    type ExportStream = tokio_stream::Iter<std::vec::IntoIter<Result<ExportResponse, Status>>>;

    async fn export(
        &self,
        request: Request<ExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        assert_eq!(request.metadata().get("authorization").unwrap(), "Bearer token");
        let asked = request.into_inner().tables;
        if asked.iter().any(|table| !["stock", "movement"].contains(&table.as_str())) {
            return Err(Status::new(Code::InvalidArgument, "no such table"));
        }
        let text = |text: &str| Kind::StringValue(text.to_owned());
        let row = row(&[
            ("sku", text("SKU")),
            ("location", text("north")),
            ("on_hand", Kind::NumberValue(8.0)),
            ("held", Kind::NumberValue(0.0)),
            ("allocated", text("9007199254740993")),
        ]);
        let rows = if asked == ["movement"] { vec![] } else { vec![Ok(row)] };
        Ok(Response::new(tokio_stream::iter(rows)))
    }
}

fn row(fields: &[(&str, Kind)]) -> ExportResponse {
    let field =
        |(name, kind): &(&str, Kind)| ((*name).to_owned(), Value { kind: Some(kind.clone()) });
    let row = Struct { fields: fields.iter().map(field).collect() };
    ExportResponse { table: "stock".to_owned(), row: Some(row) }
}

fn sources() -> Sources {
    Sources {
        services: Vec::new(),
        authorization: "Bearer token".parse().unwrap(),
        provider: None,
        maildir: None,
        history: None,
    }
}

fn inventory() -> Channel {
    mesh::testing::channel(Routes::new(AuditExportServiceServer::new(Inventory))).unwrap()
}

#[tokio::test]
async fn rows_travel_with_their_numbers_whole() {
    let exported = sources().export(&inventory(), &[]).await.unwrap();
    let mut world = World::default();
    take(&mut world, "inventory", exported).unwrap();
    let stock = &world.stocks[0];
    assert_eq!((stock.on_hand, stock.allocated), (8, 9_007_199_254_740_993));
}

#[tokio::test]
async fn a_table_without_rows_is_told_from_one_that_is_not_exported() {
    let (sources, inventory) = (sources(), inventory());
    assert!(sources.has(&inventory, "movement").await.unwrap());
    assert!(!sources.has(&inventory, "reservation").await.unwrap());
}

#[test]
fn a_row_of_another_shape_names_its_table() {
    let mut world = World::default();
    let row = serde_json::json!({ "sku": "SKU" });
    let rows = vec![row.as_object().cloned().unwrap()];
    let exported = BTreeMap::from([("stock".to_owned(), rows)]);
    let error = take(&mut world, "inventory", exported).unwrap_err().to_string();
    assert!(error.contains("`stock` of inventory") && error.contains("location"), "{error}");
}

#[test]
fn an_order_that_changed_or_was_at_work_while_others_were_read_is_moving() {
    let after = sample::completed();
    assert!(moving(&after, &after).is_empty());
    let mut before = sample::completed();
    before.orders[0].revision -= 1;
    assert_eq!(moving(&before, &after).len(), 1);
    let mut before = sample::completed();
    before.sagas[0].state = "RUNNING".to_owned();
    assert_eq!(moving(&before, &after).len(), 1);
    assert_eq!(moving(&World::default(), &after).len(), 1);
}
