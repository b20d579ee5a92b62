//! Calls as their callers see them, on a database of their own.

use mesh::testing::{self, TestDb, as_caller, as_nobody};
use proto::google::r#type::Money;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::*;

async fn catalog() -> (Catalog, TestDb) {
    let db = testing::sqlite(Store::migrations()).await;
    (Catalog::new(Store::on(db.store.clone()), Pages::new([7; 32])), db)
}

fn clerk() -> Caller {
    Caller::with_roles("users/clerk", &["warehouse"])
}

fn euros(units: i64) -> Option<Money> {
    Some(Money { currency_code: "EUR".to_owned(), units, nanos: 0 })
}

async fn product(catalog: &Catalog, id: &str) -> Result<api::Product, Status> {
    let product = api::Product { title: "Mug".to_owned(), ..api::Product::default() };
    let request = api::CreateProductRequest {
        product: Some(product),
        request_id: id.to_owned(),
        ..api::CreateProductRequest::default()
    };
    let answer = as_caller(clerk(), CatalogService::create_product(catalog, Request::new(request)));
    answer.await.map(Response::into_inner)
}

fn variant_of(product: &str) -> api::CreateVariantRequest {
    api::CreateVariantRequest {
        variant: Some(api::Variant {
            product: product.to_owned(),
            title: "Blue mug".to_owned(),
            price: euros(10),
            ..api::Variant::default()
        }),
        variant_id: "MUG-BLUE".to_owned(),
        request_id: String::new(),
    }
}

async fn create(
    catalog: &Catalog,
    request: api::CreateVariantRequest,
) -> Result<api::Variant, Status> {
    let answer = as_caller(clerk(), CatalogService::create_variant(catalog, Request::new(request)));
    answer.await.map(Response::into_inner)
}

#[tokio::test]
async fn anybody_reads_variants_in_the_order_they_asked_or_none() {
    let (catalog, _db) = catalog().await;
    let mug = product(&catalog, "").await.expect("added");
    create(&catalog, variant_of(&mug.name)).await.expect("added");
    let mut other = variant_of(&mug.name);
    other.variant_id = "MUG-RED".to_owned();
    create(&catalog, other).await.expect("added");
    let read = async |names: &[&str]| {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        let request = Request::new(api::BatchGetVariantsRequest { names });
        as_nobody(CatalogService::batch_get_variants(&catalog, request)).await
    };
    let names = ["variants/MUG-RED", "variants/MUG-BLUE", "variants/MUG-RED"];
    let found = read(&names).await.expect("all exist").into_inner().variants;
    assert_eq!(found.iter().map(|variant| variant.name.as_str()).collect::<Vec<_>>(), names);
    let status = read(&["variants/MUG-RED", "variants/NONE"]).await.expect_err("one does not");
    assert_eq!(status.code(), Code::NotFound);
    let info = status.get_details_error_info().expect("a reason");
    assert_eq!(info.metadata["name"], "variants/NONE");
}

#[tokio::test]
async fn the_same_request_id_gives_the_same_answer_and_another_request_none() {
    let (catalog, _db) = catalog().await;
    let id = "4e0fbe22-4b7c-4c9c-9d0e-111111111111";
    let first = product(&catalog, id).await.expect("added");
    assert_eq!(product(&catalog, id).await.expect("the same"), first);
    let reused = api::CreateProductRequest {
        product: Some(api::Product { title: "Cup".to_owned(), ..api::Product::default() }),
        request_id: id.to_owned(),
        ..api::CreateProductRequest::default()
    };
    let answer = as_caller(clerk(), CatalogService::create_product(&catalog, Request::new(reused)));
    let status = answer.await.expect_err("another request");
    assert_eq!(status.get_details_error_info().expect("a reason").reason, "REQUEST_ID_REUSED");
}

#[tokio::test]
async fn a_price_is_set_by_whoever_read_the_variant_last() {
    let (catalog, _db) = catalog().await;
    let mug = product(&catalog, "").await.expect("added");
    let variant = create(&catalog, variant_of(&mug.name)).await.expect("added");
    let set = async |etag: &str, units| {
        let request = Request::new(api::SetPriceRequest {
            name: variant.name.clone(),
            price: euros(units),
            etag: etag.to_owned(),
            ..api::SetPriceRequest::default()
        });
        let answer = as_caller(clerk(), CatalogService::set_price(&catalog, request)).await;
        answer.map(Response::into_inner)
    };
    let dearer = set(&variant.etag, 11).await.expect("set");
    assert_eq!(dearer.price, euros(11));
    assert_ne!(dearer.price_version, variant.price_version);
    let stale = set(&variant.etag, 12).await.expect_err("stale");
    assert_eq!(stale.get_details_error_info().expect("a reason").reason, "ETAG_MISMATCH");
}

#[tokio::test]
async fn the_variants_of_a_deleted_product_are_discontinued_until_it_is_back() {
    let (catalog, _db) = catalog().await;
    let mug = product(&catalog, "").await.expect("added");
    let variant = create(&catalog, variant_of(&mug.name)).await.expect("added");
    assert_eq!(variant.state(), api::variant::State::Active);
    let request = api::DeleteProductRequest { name: mug.name.clone(), ..Default::default() };
    as_caller(clerk(), CatalogService::delete_product(&catalog, Request::new(request)))
        .await
        .expect("deleted");
    let read = async || {
        let request = Request::new(api::GetVariantRequest { name: variant.name.clone() });
        as_nobody(CatalogService::get_variant(&catalog, request)).await.expect("reads").into_inner()
    };
    assert_eq!(read().await.state(), api::variant::State::Discontinued);
    let request = api::UndeleteProductRequest { name: mug.name, ..Default::default() };
    as_caller(clerk(), CatalogService::undelete_product(&catalog, Request::new(request)))
        .await
        .expect("back");
    assert_eq!(read().await.state(), api::variant::State::Active);
}

#[tokio::test]
async fn pages_follow_each_other_to_the_end() {
    let (catalog, _db) = catalog().await;
    for _ in 0..5 {
        product(&catalog, "").await.expect("added");
    }
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let request = Request::new(api::ListProductsRequest {
            page_size: 2,
            page_token: token,
            show_deleted: false,
        });
        let page =
            as_nobody(CatalogService::list_products(&catalog, request)).await.expect("a page");
        let page = page.into_inner();
        seen.extend(page.products.into_iter().map(|product| product.name));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen.len(), 5);
    assert!(seen.is_sorted(), "{seen:?}");
}

#[tokio::test]
async fn a_bad_field_is_named() {
    type Spoil = fn(&mut api::CreateVariantRequest);
    let (catalog, _db) = catalog().await;
    let mug = product(&catalog, "").await.expect("added");
    let spoils: [(&str, Spoil); 9] = [
        ("variant", |r| r.variant = None),
        ("variant_id", |r| r.variant_id = "a b".to_owned()),
        ("variant.product", |r| edit(r).product = "mug".to_owned()),
        ("variant.title", |r| edit(r).title.clear()),
        ("variant.price", |r| edit(r).price = None),
        ("variant.price", |r| edit(r).price = euros(-1)),
        ("variant.price", |r| edit(r).price = euros(i64::MAX)),
        ("variant.price", |r| {
            edit(r).price = Some(Money { currency_code: "XTS".to_owned(), ..Money::default() })
        }),
        ("request_id", |r| r.request_id = "again".to_owned()),
    ];
    for (field, spoil) in spoils {
        let mut request = variant_of(&mug.name);
        spoil(&mut request);
        let status = create(&catalog, request).await.expect_err(field);
        assert_eq!(status.code(), Code::InvalidArgument, "{field}");
        let violations = status.get_details_bad_request().expect("violations").field_violations;
        assert_eq!(violations.first().map(|it| it.field.as_str()), Some(field));
    }
}

fn edit(request: &mut api::CreateVariantRequest) -> &mut api::Variant {
    request.variant.get_or_insert_default()
}
