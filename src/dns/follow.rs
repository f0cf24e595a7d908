//! Keeps a zone as the API says that the cluster is.

use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use client::{Client, Sink, follow};
use task::Tasks;

use crate::objects::{EndpointSlice, Namespace, Service};
use crate::zone::Zone;

/// Feeds a zone until the task group ends.
pub(crate) fn feed(client: &Client, tasks: &Tasks, zone: &Arc<RwLock<Zone>>) {
    let feed = Arc::new(Feed(Arc::clone(zone)));
    follow::<Service, _>(client, tasks, "/api/v1/services", Arc::clone(&feed));
    follow::<EndpointSlice, _>(client, tasks, "/apis/discovery.k8s.io/v1/endpointslices", Arc::clone(&feed));
    // Of namespaces the names are enough.
    follow::<Namespace, _>(&client.partial(), tasks, "/api/v1/namespaces", feed);
}

struct Feed(Arc<RwLock<Zone>>);

impl Feed {
    fn zone(&self) -> RwLockWriteGuard<'_, Zone> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink<Service> for Feed {
    fn replace(&self, objects: Vec<Service>) {
        self.zone().replace_services(objects);
    }

    fn put(&self, object: Service) {
        self.zone().put_service(&object);
    }

    fn remove(&self, object: Service) {
        self.zone().remove_service(&object);
    }
}

impl Sink<EndpointSlice> for Feed {
    fn replace(&self, objects: Vec<EndpointSlice>) {
        self.zone().replace_slices(objects);
    }

    fn put(&self, object: EndpointSlice) {
        self.zone().put_slice(&object);
    }

    fn remove(&self, object: EndpointSlice) {
        self.zone().remove_slice(&object);
    }
}

impl Sink<Namespace> for Feed {
    fn replace(&self, objects: Vec<Namespace>) {
        self.zone().replace_namespaces(objects);
    }

    fn put(&self, object: Namespace) {
        self.zone().put_namespace(&object);
    }

    fn remove(&self, object: Namespace) {
        self.zone().remove_namespace(&object);
    }
}
