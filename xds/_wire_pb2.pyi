from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Any(_message.Message):
    __slots__ = ("type_url", "value")
    TYPE_URL_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    type_url: str
    value: bytes
    def __init__(self, type_url: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...

class Duration(_message.Message):
    __slots__ = ("seconds", "nanos")
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    NANOS_FIELD_NUMBER: _ClassVar[int]
    seconds: int
    nanos: int
    def __init__(self, seconds: _Optional[int] = ..., nanos: _Optional[int] = ...) -> None: ...

class Status(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class SemanticVersion(_message.Message):
    __slots__ = ("major_number", "minor_number", "patch")
    MAJOR_NUMBER_FIELD_NUMBER: _ClassVar[int]
    MINOR_NUMBER_FIELD_NUMBER: _ClassVar[int]
    PATCH_FIELD_NUMBER: _ClassVar[int]
    major_number: int
    minor_number: int
    patch: int
    def __init__(self, major_number: _Optional[int] = ..., minor_number: _Optional[int] = ..., patch: _Optional[int] = ...) -> None: ...

class BuildVersion(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: SemanticVersion
    def __init__(self, version: _Optional[_Union[SemanticVersion, _Mapping]] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("id", "cluster", "user_agent_name", "user_agent_version", "user_agent_build_version", "client_features")
    ID_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    USER_AGENT_NAME_FIELD_NUMBER: _ClassVar[int]
    USER_AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    USER_AGENT_BUILD_VERSION_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FEATURES_FIELD_NUMBER: _ClassVar[int]
    id: str
    cluster: str
    user_agent_name: str
    user_agent_version: str
    user_agent_build_version: BuildVersion
    client_features: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[str] = ..., cluster: _Optional[str] = ..., user_agent_name: _Optional[str] = ..., user_agent_version: _Optional[str] = ..., user_agent_build_version: _Optional[_Union[BuildVersion, _Mapping]] = ..., client_features: _Optional[_Iterable[str]] = ...) -> None: ...

class DiscoveryRequest(_message.Message):
    __slots__ = ("version_info", "node", "resource_names", "type_url", "response_nonce", "error_detail")
    VERSION_INFO_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_NAMES_FIELD_NUMBER: _ClassVar[int]
    TYPE_URL_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_NONCE_FIELD_NUMBER: _ClassVar[int]
    ERROR_DETAIL_FIELD_NUMBER: _ClassVar[int]
    version_info: str
    node: Node
    resource_names: _containers.RepeatedScalarFieldContainer[str]
    type_url: str
    response_nonce: str
    error_detail: Status
    def __init__(self, version_info: _Optional[str] = ..., node: _Optional[_Union[Node, _Mapping]] = ..., resource_names: _Optional[_Iterable[str]] = ..., type_url: _Optional[str] = ..., response_nonce: _Optional[str] = ..., error_detail: _Optional[_Union[Status, _Mapping]] = ...) -> None: ...

class DiscoveryResponse(_message.Message):
    __slots__ = ("version_info", "resources", "type_url", "nonce")
    VERSION_INFO_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    TYPE_URL_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    version_info: str
    resources: _containers.RepeatedCompositeFieldContainer[Any]
    type_url: str
    nonce: str
    def __init__(self, version_info: _Optional[str] = ..., resources: _Optional[_Iterable[_Union[Any, _Mapping]]] = ..., type_url: _Optional[str] = ..., nonce: _Optional[str] = ...) -> None: ...

class Resource(_message.Message):
    __slots__ = ("version", "resource", "name", "aliases", "ttl")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    version: str
    resource: Any
    name: str
    aliases: _containers.RepeatedScalarFieldContainer[str]
    ttl: Duration
    def __init__(self, version: _Optional[str] = ..., resource: _Optional[_Union[Any, _Mapping]] = ..., name: _Optional[str] = ..., aliases: _Optional[_Iterable[str]] = ..., ttl: _Optional[_Union[Duration, _Mapping]] = ...) -> None: ...

class DeltaDiscoveryRequest(_message.Message):
    __slots__ = ("node", "type_url", "resource_names_subscribe", "resource_names_unsubscribe", "initial_resource_versions", "response_nonce", "error_detail")
    class InitialResourceVersionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NODE_FIELD_NUMBER: _ClassVar[int]
    TYPE_URL_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_NAMES_SUBSCRIBE_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_NAMES_UNSUBSCRIBE_FIELD_NUMBER: _ClassVar[int]
    INITIAL_RESOURCE_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_NONCE_FIELD_NUMBER: _ClassVar[int]
    ERROR_DETAIL_FIELD_NUMBER: _ClassVar[int]
    node: Node
    type_url: str
    resource_names_subscribe: _containers.RepeatedScalarFieldContainer[str]
    resource_names_unsubscribe: _containers.RepeatedScalarFieldContainer[str]
    initial_resource_versions: _containers.ScalarMap[str, str]
    response_nonce: str
    error_detail: Status
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ..., type_url: _Optional[str] = ..., resource_names_subscribe: _Optional[_Iterable[str]] = ..., resource_names_unsubscribe: _Optional[_Iterable[str]] = ..., initial_resource_versions: _Optional[_Mapping[str, str]] = ..., response_nonce: _Optional[str] = ..., error_detail: _Optional[_Union[Status, _Mapping]] = ...) -> None: ...

class DeltaDiscoveryResponse(_message.Message):
    __slots__ = ("system_version_info", "resources", "type_url", "nonce", "removed_resources")
    SYSTEM_VERSION_INFO_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    TYPE_URL_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    REMOVED_RESOURCES_FIELD_NUMBER: _ClassVar[int]
    system_version_info: str
    resources: _containers.RepeatedCompositeFieldContainer[Resource]
    type_url: str
    nonce: str
    removed_resources: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, system_version_info: _Optional[str] = ..., resources: _Optional[_Iterable[_Union[Resource, _Mapping]]] = ..., type_url: _Optional[str] = ..., nonce: _Optional[str] = ..., removed_resources: _Optional[_Iterable[str]] = ...) -> None: ...

class Struct(_message.Message):
    __slots__ = ("fields",)
    class FieldsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    fields: _containers.MessageMap[str, Value]
    def __init__(self, fields: _Optional[_Mapping[str, Value]] = ...) -> None: ...

class Value(_message.Message):
    __slots__ = ("number_value", "string_value", "struct_value")
    NUMBER_VALUE_FIELD_NUMBER: _ClassVar[int]
    STRING_VALUE_FIELD_NUMBER: _ClassVar[int]
    STRUCT_VALUE_FIELD_NUMBER: _ClassVar[int]
    number_value: float
    string_value: str
    struct_value: Struct
    def __init__(self, number_value: _Optional[float] = ..., string_value: _Optional[str] = ..., struct_value: _Optional[_Union[Struct, _Mapping]] = ...) -> None: ...

class Runtime(_message.Message):
    __slots__ = ("name", "layer")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    name: str
    layer: Struct
    def __init__(self, name: _Optional[str] = ..., layer: _Optional[_Union[Struct, _Mapping]] = ...) -> None: ...

class Cluster(_message.Message):
    __slots__ = ("name", "type", "eds_cluster_config", "transport_socket", "transport_socket_matches")
    class EdsClusterConfig(_message.Message):
        __slots__ = ("service_name",)
        SERVICE_NAME_FIELD_NUMBER: _ClassVar[int]
        service_name: str
        def __init__(self, service_name: _Optional[str] = ...) -> None: ...
    class TransportSocketMatch(_message.Message):
        __slots__ = ("transport_socket",)
        TRANSPORT_SOCKET_FIELD_NUMBER: _ClassVar[int]
        transport_socket: TransportSocket
        def __init__(self, transport_socket: _Optional[_Union[TransportSocket, _Mapping]] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    EDS_CLUSTER_CONFIG_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_SOCKET_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_SOCKET_MATCHES_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: int
    eds_cluster_config: Cluster.EdsClusterConfig
    transport_socket: TransportSocket
    transport_socket_matches: _containers.RepeatedCompositeFieldContainer[Cluster.TransportSocketMatch]
    def __init__(self, name: _Optional[str] = ..., type: _Optional[int] = ..., eds_cluster_config: _Optional[_Union[Cluster.EdsClusterConfig, _Mapping]] = ..., transport_socket: _Optional[_Union[TransportSocket, _Mapping]] = ..., transport_socket_matches: _Optional[_Iterable[_Union[Cluster.TransportSocketMatch, _Mapping]]] = ...) -> None: ...

class TransportSocket(_message.Message):
    __slots__ = ("typed_config",)
    TYPED_CONFIG_FIELD_NUMBER: _ClassVar[int]
    typed_config: Any
    def __init__(self, typed_config: _Optional[_Union[Any, _Mapping]] = ...) -> None: ...

class TlsContext(_message.Message):
    __slots__ = ("common_tls_context", "session_ticket_keys_sds_secret_config")
    COMMON_TLS_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    SESSION_TICKET_KEYS_SDS_SECRET_CONFIG_FIELD_NUMBER: _ClassVar[int]
    common_tls_context: CommonTlsContext
    session_ticket_keys_sds_secret_config: SdsSecretConfig
    def __init__(self, common_tls_context: _Optional[_Union[CommonTlsContext, _Mapping]] = ..., session_ticket_keys_sds_secret_config: _Optional[_Union[SdsSecretConfig, _Mapping]] = ...) -> None: ...

class QuicTransport(_message.Message):
    __slots__ = ("tls_context",)
    TLS_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    tls_context: TlsContext
    def __init__(self, tls_context: _Optional[_Union[TlsContext, _Mapping]] = ...) -> None: ...

class CommonTlsContext(_message.Message):
    __slots__ = ("tls_certificate_sds_secret_configs", "validation_context_sds_secret_config", "combined_validation_context")
    class CombinedCertificateValidationContext(_message.Message):
        __slots__ = ("validation_context_sds_secret_config",)
        VALIDATION_CONTEXT_SDS_SECRET_CONFIG_FIELD_NUMBER: _ClassVar[int]
        validation_context_sds_secret_config: SdsSecretConfig
        def __init__(self, validation_context_sds_secret_config: _Optional[_Union[SdsSecretConfig, _Mapping]] = ...) -> None: ...
    TLS_CERTIFICATE_SDS_SECRET_CONFIGS_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_CONTEXT_SDS_SECRET_CONFIG_FIELD_NUMBER: _ClassVar[int]
    COMBINED_VALIDATION_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    tls_certificate_sds_secret_configs: _containers.RepeatedCompositeFieldContainer[SdsSecretConfig]
    validation_context_sds_secret_config: SdsSecretConfig
    combined_validation_context: CommonTlsContext.CombinedCertificateValidationContext
    def __init__(self, tls_certificate_sds_secret_configs: _Optional[_Iterable[_Union[SdsSecretConfig, _Mapping]]] = ..., validation_context_sds_secret_config: _Optional[_Union[SdsSecretConfig, _Mapping]] = ..., combined_validation_context: _Optional[_Union[CommonTlsContext.CombinedCertificateValidationContext, _Mapping]] = ...) -> None: ...

class SdsSecretConfig(_message.Message):
    __slots__ = ("name", "sds_config")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SDS_CONFIG_FIELD_NUMBER: _ClassVar[int]
    name: str
    sds_config: ConfigSource
    def __init__(self, name: _Optional[str] = ..., sds_config: _Optional[_Union[ConfigSource, _Mapping]] = ...) -> None: ...

class ConfigSource(_message.Message):
    __slots__ = ("api_config_source", "ads", "self")
    API_CONFIG_SOURCE_FIELD_NUMBER: _ClassVar[int]
    ADS_FIELD_NUMBER: _ClassVar[int]
    SELF_FIELD_NUMBER: _ClassVar[int]
    api_config_source: Any
    ads: Any
    self: Any
    def __init__(self_, api_config_source: _Optional[_Union[Any, _Mapping]] = ..., ads: _Optional[_Union[Any, _Mapping]] = ..., self: _Optional[_Union[Any, _Mapping]] = ...) -> None: ...

class RouteConfiguration(_message.Message):
    __slots__ = ("name", "virtual_hosts", "vhds", "request_mirror_policies")
    class Vhds(_message.Message):
        __slots__ = ()
        def __init__(self) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    VIRTUAL_HOSTS_FIELD_NUMBER: _ClassVar[int]
    VHDS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_MIRROR_POLICIES_FIELD_NUMBER: _ClassVar[int]
    name: str
    virtual_hosts: _containers.RepeatedCompositeFieldContainer[VirtualHost]
    vhds: RouteConfiguration.Vhds
    request_mirror_policies: _containers.RepeatedCompositeFieldContainer[MirrorPolicy]
    def __init__(self, name: _Optional[str] = ..., virtual_hosts: _Optional[_Iterable[_Union[VirtualHost, _Mapping]]] = ..., vhds: _Optional[_Union[RouteConfiguration.Vhds, _Mapping]] = ..., request_mirror_policies: _Optional[_Iterable[_Union[MirrorPolicy, _Mapping]]] = ...) -> None: ...

class ScopedRouteConfiguration(_message.Message):
    __slots__ = ("route_configuration_name", "route_configuration")
    ROUTE_CONFIGURATION_NAME_FIELD_NUMBER: _ClassVar[int]
    ROUTE_CONFIGURATION_FIELD_NUMBER: _ClassVar[int]
    route_configuration_name: str
    route_configuration: RouteConfiguration
    def __init__(self, route_configuration_name: _Optional[str] = ..., route_configuration: _Optional[_Union[RouteConfiguration, _Mapping]] = ...) -> None: ...

class VirtualHost(_message.Message):
    __slots__ = ("name", "domains", "routes", "request_mirror_policies")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DOMAINS_FIELD_NUMBER: _ClassVar[int]
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_MIRROR_POLICIES_FIELD_NUMBER: _ClassVar[int]
    name: str
    domains: _containers.RepeatedScalarFieldContainer[str]
    routes: _containers.RepeatedCompositeFieldContainer[Route]
    request_mirror_policies: _containers.RepeatedCompositeFieldContainer[MirrorPolicy]
    def __init__(self, name: _Optional[str] = ..., domains: _Optional[_Iterable[str]] = ..., routes: _Optional[_Iterable[_Union[Route, _Mapping]]] = ..., request_mirror_policies: _Optional[_Iterable[_Union[MirrorPolicy, _Mapping]]] = ...) -> None: ...

class MirrorPolicy(_message.Message):
    __slots__ = ("cluster",)
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    def __init__(self, cluster: _Optional[str] = ...) -> None: ...

class Route(_message.Message):
    __slots__ = ("route",)
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    route: RouteAction
    def __init__(self, route: _Optional[_Union[RouteAction, _Mapping]] = ...) -> None: ...

class RouteAction(_message.Message):
    __slots__ = ("cluster", "weighted_clusters", "request_mirror_policies")
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    WEIGHTED_CLUSTERS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_MIRROR_POLICIES_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    weighted_clusters: WeightedCluster
    request_mirror_policies: _containers.RepeatedCompositeFieldContainer[MirrorPolicy]
    def __init__(self, cluster: _Optional[str] = ..., weighted_clusters: _Optional[_Union[WeightedCluster, _Mapping]] = ..., request_mirror_policies: _Optional[_Iterable[_Union[MirrorPolicy, _Mapping]]] = ...) -> None: ...

class WeightedCluster(_message.Message):
    __slots__ = ("clusters",)
    class ClusterWeight(_message.Message):
        __slots__ = ("name",)
        NAME_FIELD_NUMBER: _ClassVar[int]
        name: str
        def __init__(self, name: _Optional[str] = ...) -> None: ...
    CLUSTERS_FIELD_NUMBER: _ClassVar[int]
    clusters: _containers.RepeatedCompositeFieldContainer[WeightedCluster.ClusterWeight]
    def __init__(self, clusters: _Optional[_Iterable[_Union[WeightedCluster.ClusterWeight, _Mapping]]] = ...) -> None: ...

class Listener(_message.Message):
    __slots__ = ("filter_chains", "listener_filters", "default_filter_chain")
    class Filter(_message.Message):
        __slots__ = ("name", "typed_config", "config_discovery")
        NAME_FIELD_NUMBER: _ClassVar[int]
        TYPED_CONFIG_FIELD_NUMBER: _ClassVar[int]
        CONFIG_DISCOVERY_FIELD_NUMBER: _ClassVar[int]
        name: str
        typed_config: Any
        config_discovery: ExtensionConfigSource
        def __init__(self, name: _Optional[str] = ..., typed_config: _Optional[_Union[Any, _Mapping]] = ..., config_discovery: _Optional[_Union[ExtensionConfigSource, _Mapping]] = ...) -> None: ...
    class FilterChain(_message.Message):
        __slots__ = ("filters", "transport_socket")
        FILTERS_FIELD_NUMBER: _ClassVar[int]
        TRANSPORT_SOCKET_FIELD_NUMBER: _ClassVar[int]
        filters: _containers.RepeatedCompositeFieldContainer[Listener.Filter]
        transport_socket: TransportSocket
        def __init__(self, filters: _Optional[_Iterable[_Union[Listener.Filter, _Mapping]]] = ..., transport_socket: _Optional[_Union[TransportSocket, _Mapping]] = ...) -> None: ...
    class ListenerFilter(_message.Message):
        __slots__ = ("name", "config_discovery")
        NAME_FIELD_NUMBER: _ClassVar[int]
        CONFIG_DISCOVERY_FIELD_NUMBER: _ClassVar[int]
        name: str
        config_discovery: ExtensionConfigSource
        def __init__(self, name: _Optional[str] = ..., config_discovery: _Optional[_Union[ExtensionConfigSource, _Mapping]] = ...) -> None: ...
    FILTER_CHAINS_FIELD_NUMBER: _ClassVar[int]
    LISTENER_FILTERS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_FILTER_CHAIN_FIELD_NUMBER: _ClassVar[int]
    filter_chains: _containers.RepeatedCompositeFieldContainer[Listener.FilterChain]
    listener_filters: _containers.RepeatedCompositeFieldContainer[Listener.ListenerFilter]
    default_filter_chain: Listener.FilterChain
    def __init__(self, filter_chains: _Optional[_Iterable[_Union[Listener.FilterChain, _Mapping]]] = ..., listener_filters: _Optional[_Iterable[_Union[Listener.ListenerFilter, _Mapping]]] = ..., default_filter_chain: _Optional[_Union[Listener.FilterChain, _Mapping]] = ...) -> None: ...

class HttpConnectionManager(_message.Message):
    __slots__ = ("rds", "route_config", "http_filters", "scoped_routes")
    class Rds(_message.Message):
        __slots__ = ("route_config_name",)
        ROUTE_CONFIG_NAME_FIELD_NUMBER: _ClassVar[int]
        route_config_name: str
        def __init__(self, route_config_name: _Optional[str] = ...) -> None: ...
    class HttpFilter(_message.Message):
        __slots__ = ("name", "config_discovery")
        NAME_FIELD_NUMBER: _ClassVar[int]
        CONFIG_DISCOVERY_FIELD_NUMBER: _ClassVar[int]
        name: str
        config_discovery: ExtensionConfigSource
        def __init__(self, name: _Optional[str] = ..., config_discovery: _Optional[_Union[ExtensionConfigSource, _Mapping]] = ...) -> None: ...
    class ScopedRoutes(_message.Message):
        __slots__ = ("scoped_route_configurations_list",)
        class ScopedRouteConfigurationsList(_message.Message):
            __slots__ = ("scoped_route_configurations",)
            SCOPED_ROUTE_CONFIGURATIONS_FIELD_NUMBER: _ClassVar[int]
            scoped_route_configurations: _containers.RepeatedCompositeFieldContainer[ScopedRouteConfiguration]
            def __init__(self, scoped_route_configurations: _Optional[_Iterable[_Union[ScopedRouteConfiguration, _Mapping]]] = ...) -> None: ...
        SCOPED_ROUTE_CONFIGURATIONS_LIST_FIELD_NUMBER: _ClassVar[int]
        scoped_route_configurations_list: HttpConnectionManager.ScopedRoutes.ScopedRouteConfigurationsList
        def __init__(self, scoped_route_configurations_list: _Optional[_Union[HttpConnectionManager.ScopedRoutes.ScopedRouteConfigurationsList, _Mapping]] = ...) -> None: ...
    RDS_FIELD_NUMBER: _ClassVar[int]
    ROUTE_CONFIG_FIELD_NUMBER: _ClassVar[int]
    HTTP_FILTERS_FIELD_NUMBER: _ClassVar[int]
    SCOPED_ROUTES_FIELD_NUMBER: _ClassVar[int]
    rds: HttpConnectionManager.Rds
    route_config: RouteConfiguration
    http_filters: _containers.RepeatedCompositeFieldContainer[HttpConnectionManager.HttpFilter]
    scoped_routes: HttpConnectionManager.ScopedRoutes
    def __init__(self, rds: _Optional[_Union[HttpConnectionManager.Rds, _Mapping]] = ..., route_config: _Optional[_Union[RouteConfiguration, _Mapping]] = ..., http_filters: _Optional[_Iterable[_Union[HttpConnectionManager.HttpFilter, _Mapping]]] = ..., scoped_routes: _Optional[_Union[HttpConnectionManager.ScopedRoutes, _Mapping]] = ...) -> None: ...

class TcpProxy(_message.Message):
    __slots__ = ("cluster", "weighted_clusters")
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    WEIGHTED_CLUSTERS_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    weighted_clusters: WeightedCluster
    def __init__(self, cluster: _Optional[str] = ..., weighted_clusters: _Optional[_Union[WeightedCluster, _Mapping]] = ...) -> None: ...

class ExtensionConfigSource(_message.Message):
    __slots__ = ("config_source", "default_config")
    CONFIG_SOURCE_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_CONFIG_FIELD_NUMBER: _ClassVar[int]
    config_source: ConfigSource
    default_config: Any
    def __init__(self, config_source: _Optional[_Union[ConfigSource, _Mapping]] = ..., default_config: _Optional[_Union[Any, _Mapping]] = ...) -> None: ...

class TypedExtensionConfig(_message.Message):
    __slots__ = ("typed_config",)
    TYPED_CONFIG_FIELD_NUMBER: _ClassVar[int]
    typed_config: Any
    def __init__(self, typed_config: _Optional[_Union[Any, _Mapping]] = ...) -> None: ...
