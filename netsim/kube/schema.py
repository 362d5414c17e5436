"""Fields of the API types netsim decodes, as data, and the small language they are written in.

One type a definition: ``Name: field=type field=type …``, continued on indented lines. Types: ``string bool int32 int64``,
``Quantity IntOrString Time any``, a type's name, ``[]T`` a list, ``{}T`` a map from strings. A name that ends in ``+`` is
open: fields that are not listed are let through (statuses, which no user writes and which grow with every release).
"""

from __future__ import annotations

META = """
ObjectMeta: name=string generateName=string namespace=string selfLink=string uid=string resourceVersion=string
  generation=int64 creationTimestamp=Time deletionTimestamp=Time deletionGracePeriodSeconds=int64
  labels={}string annotations={}string ownerReferences=[]OwnerReference finalizers=[]string managedFields=any
  clusterName=string initializers=any
OwnerReference: apiVersion=string kind=string name=string uid=string controller=bool blockOwnerDeletion=bool
LabelSelector: matchLabels={}string matchExpressions=[]LabelSelectorRequirement
LabelSelectorRequirement: key=string operator=string values=[]string
Condition+: type=string status=string reason=string
Status+: phase=string
Anything+: apiVersion=string kind=string metadata=ObjectMeta
"""

CORE = """
Namespace: apiVersion=string kind=string metadata=ObjectMeta spec=NamespaceSpec status=Status
NamespaceSpec: finalizers=[]string
Node: apiVersion=string kind=string metadata=ObjectMeta spec=NodeSpec status=NodeStatus
NodeSpec: podCIDR=string podCIDRs=[]string providerID=string unschedulable=bool taints=[]Taint configSource=any
  externalID=string
Taint: key=string value=string effect=string timeAdded=Time
NodeStatus+: capacity={}Quantity allocatable={}Quantity conditions=[]Condition addresses=[]NodeAddress
NodeAddress: type=string address=string
Pod: apiVersion=string kind=string metadata=ObjectMeta spec=PodSpec status=PodStatus
PodStatus+: phase=string podIP=string podIPs=[]PodIP hostIP=string conditions=[]Condition
PodIP: ip=string
ConfigMap: apiVersion=string kind=string metadata=ObjectMeta data={}string binaryData={}string immutable=bool
Service: apiVersion=string kind=string metadata=ObjectMeta spec=ServiceSpec status=ServiceStatus
ServiceSpec: ports=[]ServicePort selector={}string clusterIP=string clusterIPs=[]string type=string
  externalIPs=[]string sessionAffinity=string loadBalancerIP=string loadBalancerSourceRanges=[]string
  externalName=string externalTrafficPolicy=string healthCheckNodePort=int32 publishNotReadyAddresses=bool
  sessionAffinityConfig=SessionAffinityConfig ipFamilies=[]string ipFamilyPolicy=string ipFamily=string
  allocateLoadBalancerNodePorts=bool loadBalancerClass=string internalTrafficPolicy=string
  trafficDistribution=string topologyKeys=[]string
ServicePort: name=string protocol=string appProtocol=string port=int32 targetPort=IntOrString nodePort=int32
SessionAffinityConfig: clientIP=ClientIPConfig
ClientIPConfig: timeoutSeconds=int32
ServiceStatus+: loadBalancer=LoadBalancerStatus
LoadBalancerStatus: ingress=[]LoadBalancerIngress
LoadBalancerIngress: ip=string hostname=string ipMode=string ports=any
Endpoints: apiVersion=string kind=string metadata=ObjectMeta subsets=[]EndpointSubset
EndpointSubset: addresses=[]EndpointAddress notReadyAddresses=[]EndpointAddress ports=[]EndpointPort
EndpointAddress: ip=string hostname=string nodeName=string targetRef=ObjectReference
ObjectReference: kind=string namespace=string name=string uid=string apiVersion=string resourceVersion=string
  fieldPath=string
EndpointPort: name=string port=int32 protocol=string appProtocol=string
EndpointSlice: apiVersion=string kind=string metadata=ObjectMeta addressType=string endpoints=[]Endpoint
  ports=[]EndpointPort
Endpoint: addresses=[]string conditions=EndpointConditions hostname=string targetRef=ObjectReference
  deprecatedTopology={}string topology={}string nodeName=string zone=string hints=EndpointHints
EndpointConditions: ready=bool serving=bool terminating=bool
EndpointHints: forZones=[]ForZone forNodes=[]ForNode
ForZone: name=string
ForNode: name=string
"""

NETWORKING = """
NetworkPolicy: apiVersion=string kind=string metadata=ObjectMeta spec=NetworkPolicySpec status=Status
NetworkPolicySpec: podSelector=LabelSelector ingress=[]NetworkPolicyIngressRule egress=[]NetworkPolicyEgressRule
  policyTypes=[]string
NetworkPolicyIngressRule: ports=[]NetworkPolicyPort from=[]NetworkPolicyPeer
NetworkPolicyEgressRule: ports=[]NetworkPolicyPort to=[]NetworkPolicyPeer
NetworkPolicyPort: protocol=string port=IntOrString endPort=int32
NetworkPolicyPeer: podSelector=LabelSelector namespaceSelector=LabelSelector ipBlock=IPBlock
IPBlock: cidr=string except=[]string
Ingress: apiVersion=string kind=string metadata=ObjectMeta spec=IngressSpec status=Status
IngressSpec: ingressClassName=string defaultBackend=IngressBackend tls=[]IngressTLS rules=[]IngressRule
IngressTLS: hosts=[]string secretName=string
IngressRule: host=string http=HTTPIngressRuleValue
HTTPIngressRuleValue: paths=[]HTTPIngressPath
HTTPIngressPath: path=string pathType=string backend=IngressBackend
IngressBackend: service=IngressServiceBackend resource=TypedLocalObjectReference
IngressServiceBackend: name=string port=ServiceBackendPort
ServiceBackendPort: name=string number=int32
OldIngress: apiVersion=string kind=string metadata=ObjectMeta spec=OldIngressSpec status=Status
OldIngressSpec: ingressClassName=string backend=OldIngressBackend tls=[]IngressTLS rules=[]OldIngressRule
OldIngressRule: host=string http=OldHTTPIngressRuleValue
OldHTTPIngressRuleValue: paths=[]OldHTTPIngressPath
OldHTTPIngressPath: path=string pathType=string backend=OldIngressBackend
OldIngressBackend: serviceName=string servicePort=IntOrString resource=TypedLocalObjectReference
IngressClass: apiVersion=string kind=string metadata=ObjectMeta spec=IngressClassSpec
IngressClassSpec: controller=string parameters=any
ServiceCIDR: apiVersion=string kind=string metadata=ObjectMeta spec=ServiceCIDRSpec status=Status
ServiceCIDRSpec: cidrs=[]string
IPAddress: apiVersion=string kind=string metadata=ObjectMeta spec=IPAddressSpec
IPAddressSpec: parentRef=ParentReference
ParentReference: group=string resource=string namespace=string name=string
"""

WORKLOADS = """
Deployment: apiVersion=string kind=string metadata=ObjectMeta spec=DeploymentSpec status=Status
DeploymentSpec: replicas=int32 selector=LabelSelector template=PodTemplateSpec strategy=DeploymentStrategy
  minReadySeconds=int32 revisionHistoryLimit=int32 paused=bool progressDeadlineSeconds=int32
OldDeployment: apiVersion=string kind=string metadata=ObjectMeta spec=OldDeploymentSpec status=Status
OldDeploymentSpec: replicas=int32 selector=LabelSelector template=PodTemplateSpec strategy=DeploymentStrategy
  minReadySeconds=int32 revisionHistoryLimit=int32 paused=bool progressDeadlineSeconds=int32 rollbackTo=any
DeploymentStrategy: type=string rollingUpdate=RollingUpdate
RollingUpdate: maxUnavailable=IntOrString maxSurge=IntOrString partition=int32
ReplicaSet: apiVersion=string kind=string metadata=ObjectMeta spec=ReplicaSetSpec status=Status
ReplicaSetSpec: replicas=int32 minReadySeconds=int32 selector=LabelSelector template=PodTemplateSpec
ReplicationController: apiVersion=string kind=string metadata=ObjectMeta spec=ReplicationControllerSpec status=Status
ReplicationControllerSpec: replicas=int32 minReadySeconds=int32 selector={}string template=PodTemplateSpec
StatefulSet: apiVersion=string kind=string metadata=ObjectMeta spec=StatefulSetSpec status=Status
StatefulSetSpec: replicas=int32 selector=LabelSelector template=PodTemplateSpec volumeClaimTemplates=[]Anything
  serviceName=string podManagementPolicy=string updateStrategy=DeploymentStrategy revisionHistoryLimit=int32
  minReadySeconds=int32 persistentVolumeClaimRetentionPolicy=RetentionPolicy ordinals=Ordinals
RetentionPolicy: whenDeleted=string whenScaled=string
Ordinals: start=int32
DaemonSet: apiVersion=string kind=string metadata=ObjectMeta spec=DaemonSetSpec status=Status
DaemonSetSpec: selector=LabelSelector template=PodTemplateSpec updateStrategy=DeploymentStrategy
  minReadySeconds=int32 revisionHistoryLimit=int32 templateGeneration=int64
Job: apiVersion=string kind=string metadata=ObjectMeta spec=JobSpec status=Status
JobSpec: parallelism=int32 completions=int32 activeDeadlineSeconds=int64 podFailurePolicy=any successPolicy=any
  backoffLimit=int32 backoffLimitPerIndex=int32 maxFailedIndexes=int32 selector=LabelSelector manualSelector=bool
  template=PodTemplateSpec ttlSecondsAfterFinished=int32 completionMode=string suspend=bool
  podReplacementPolicy=string managedBy=string
CronJob: apiVersion=string kind=string metadata=ObjectMeta spec=CronJobSpec status=Status
CronJobSpec: schedule=string timeZone=string startingDeadlineSeconds=int64 concurrencyPolicy=string suspend=bool
  jobTemplate=JobTemplateSpec successfulJobsHistoryLimit=int32 failedJobsHistoryLimit=int32
JobTemplateSpec: metadata=ObjectMeta spec=JobSpec
PodDisruptionBudget: apiVersion=string kind=string metadata=ObjectMeta spec=PodDisruptionBudgetSpec status=Status
PodDisruptionBudgetSpec: minAvailable=IntOrString selector=LabelSelector maxUnavailable=IntOrString
  unhealthyPodEvictionPolicy=string
HorizontalPodAutoscaler: apiVersion=string kind=string metadata=ObjectMeta spec=HorizontalPodAutoscalerSpec status=Status
HorizontalPodAutoscalerSpec: scaleTargetRef=CrossVersionObjectReference minReplicas=int32 maxReplicas=int32
  metrics=[]MetricSpec behavior=any targetCPUUtilizationPercentage=int32
MetricSpec+: type=string resource=MetricSource containerResource=MetricSource pods=MetricSource object=MetricSource
  external=MetricSource
MetricSource+: name=string metricName=string target=Anything
CrossVersionObjectReference: kind=string name=string apiVersion=string
"""

OLD = {
    ("extensions/v1beta1", "Ingress"): "OldIngress",
    ("networking.k8s.io/v1beta1", "Ingress"): "OldIngress",
    ("extensions/v1beta1", "Deployment"): "OldDeployment",
    ("apps/v1beta1", "Deployment"): "OldDeployment",
}
