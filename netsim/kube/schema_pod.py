"""Fields of a Pod and everything in it, as data (core/v1; the union of Kubernetes 1.26 to 1.36).

One type a line: its name, a colon, then ``field=type``. See ``netsim.kube.schema`` for the types.
"""

from __future__ import annotations

POD = """
PodTemplateSpec: metadata=ObjectMeta spec=PodSpec
PodSpec: volumes=[]Volume initContainers=[]Container containers=[]Container
  ephemeralContainers=[]EphemeralContainer restartPolicy=string terminationGracePeriodSeconds=int64
  activeDeadlineSeconds=int64 dnsPolicy=string nodeSelector={}string serviceAccountName=string
  serviceAccount=string automountServiceAccountToken=bool nodeName=string hostNetwork=bool hostPID=bool
  hostIPC=bool shareProcessNamespace=bool securityContext=PodSecurityContext
  imagePullSecrets=[]LocalObjectReference hostname=string subdomain=string affinity=Affinity
  schedulerName=string tolerations=[]Toleration hostAliases=[]HostAlias priorityClassName=string priority=int32
  dnsConfig=PodDNSConfig readinessGates=[]PodReadinessGate runtimeClassName=string enableServiceLinks=bool
  preemptionPolicy=string overhead={}Quantity topologySpreadConstraints=[]TopologySpreadConstraint
  setHostnameAsFQDN=bool os=PodOS hostUsers=bool schedulingGates=[]PodSchedulingGate
  resourceClaims=[]PodResourceClaim resources=ResourceRequirements hostnameOverride=string
  schedulingGroup=PodSchedulingGroup workloadRef=WorkloadReference
PodResourceClaim: name=string resourceClaimName=string resourceClaimTemplateName=string source=ClaimSource
ClaimSource: resourceClaimName=string resourceClaimTemplateName=string
PodSchedulingGate: name=string
PodOS: name=string
TopologySpreadConstraint: maxSkew=int32 topologyKey=string whenUnsatisfiable=string labelSelector=LabelSelector
  minDomains=int32 nodeAffinityPolicy=string nodeTaintsPolicy=string matchLabelKeys=[]string
PodReadinessGate: conditionType=string
PodDNSConfig: nameservers=[]string searches=[]string options=[]PodDNSConfigOption
PodDNSConfigOption: name=string value=string
HostAlias: ip=string hostnames=[]string
Toleration: key=string operator=string value=string effect=string tolerationSeconds=int64
Affinity: nodeAffinity=NodeAffinity podAffinity=PodAffinity podAntiAffinity=PodAntiAffinity
PodAntiAffinity: requiredDuringSchedulingIgnoredDuringExecution=[]PodAffinityTerm
  preferredDuringSchedulingIgnoredDuringExecution=[]WeightedPodAffinityTerm
WeightedPodAffinityTerm: weight=int32 podAffinityTerm=PodAffinityTerm
PodAffinityTerm: labelSelector=LabelSelector namespaces=[]string topologyKey=string
  namespaceSelector=LabelSelector matchLabelKeys=[]string mismatchLabelKeys=[]string
PodAffinity: requiredDuringSchedulingIgnoredDuringExecution=[]PodAffinityTerm
  preferredDuringSchedulingIgnoredDuringExecution=[]WeightedPodAffinityTerm
NodeAffinity: requiredDuringSchedulingIgnoredDuringExecution=NodeSelector
  preferredDuringSchedulingIgnoredDuringExecution=[]PreferredSchedulingTerm
PreferredSchedulingTerm: weight=int32 preference=NodeSelectorTerm
NodeSelectorTerm: matchExpressions=[]NodeSelectorRequirement matchFields=[]NodeSelectorRequirement
NodeSelectorRequirement: key=string operator=string values=[]string
NodeSelector: nodeSelectorTerms=[]NodeSelectorTerm
LocalObjectReference: name=string
PodSecurityContext: seLinuxOptions=SELinuxOptions windowsOptions=WindowsSecurityContextOptions runAsUser=int64
  runAsGroup=int64 runAsNonRoot=bool supplementalGroups=[]int64 supplementalGroupsPolicy=string fsGroup=int64
  sysctls=[]Sysctl fsGroupChangePolicy=string seccompProfile=SeccompProfile appArmorProfile=AppArmorProfile
  seLinuxChangePolicy=string
SeccompProfile: type=string localhostProfile=string
Sysctl: name=string value=string
WindowsSecurityContextOptions: gmsaCredentialSpecName=string gmsaCredentialSpec=string runAsUserName=string
  hostProcess=bool
SELinuxOptions: user=string role=string type=string level=string
EphemeralContainer: name=string image=string command=[]string args=[]string workingDir=string
  ports=[]ContainerPort envFrom=[]EnvFromSource env=[]EnvVar resources=ResourceRequirements
  resizePolicy=[]ContainerResizePolicy restartPolicy=string restartPolicyRules=[]ContainerRestartRule
  volumeMounts=[]VolumeMount volumeDevices=[]VolumeDevice livenessProbe=Probe readinessProbe=Probe
  startupProbe=Probe lifecycle=Lifecycle terminationMessagePath=string terminationMessagePolicy=string
  imagePullPolicy=string securityContext=SecurityContext stdin=bool stdinOnce=bool tty=bool
  targetContainerName=string
SecurityContext: capabilities=Capabilities privileged=bool seLinuxOptions=SELinuxOptions
  windowsOptions=WindowsSecurityContextOptions runAsUser=int64 runAsGroup=int64 runAsNonRoot=bool
  readOnlyRootFilesystem=bool allowPrivilegeEscalation=bool procMount=string seccompProfile=SeccompProfile
  appArmorProfile=AppArmorProfile
Capabilities: add=[]string drop=[]string
Lifecycle: postStart=LifecycleHandler preStop=LifecycleHandler stopSignal=string
LifecycleHandler: exec=ExecAction httpGet=HTTPGetAction tcpSocket=TCPSocketAction sleep=SleepAction
TCPSocketAction: port=IntOrString host=string
HTTPGetAction: path=string port=IntOrString host=string scheme=string httpHeaders=[]HTTPHeader
HTTPHeader: name=string value=string
ExecAction: command=[]string
Probe: exec=ExecAction httpGet=HTTPGetAction tcpSocket=TCPSocketAction grpc=GRPCAction initialDelaySeconds=int32
  timeoutSeconds=int32 periodSeconds=int32 successThreshold=int32 failureThreshold=int32
  terminationGracePeriodSeconds=int64
GRPCAction: port=int32 service=string
VolumeDevice: name=string devicePath=string
VolumeMount: name=string readOnly=bool recursiveReadOnly=string mountPath=string subPath=string
  mountPropagation=string subPathExpr=string
ResourceRequirements: limits={}Quantity requests={}Quantity claims=[]ResourceClaim
ResourceClaim: name=string request=string
EnvVar: name=string value=string valueFrom=EnvVarSource
EnvVarSource: fieldRef=ObjectFieldSelector resourceFieldRef=ResourceFieldSelector
  configMapKeyRef=ConfigMapKeySelector secretKeyRef=SecretKeySelector fileKeyRef=FileKeySelector
SecretKeySelector: name=string key=string optional=bool
ConfigMapKeySelector: name=string key=string optional=bool
ResourceFieldSelector: containerName=string resource=string divisor=Quantity
ObjectFieldSelector: apiVersion=string fieldPath=string
EnvFromSource: prefix=string configMapRef=ConfigMapEnvSource secretRef=SecretEnvSource
SecretEnvSource: name=string optional=bool
ConfigMapEnvSource: name=string optional=bool
ContainerPort: name=string hostPort=int32 containerPort=int32 protocol=string hostIP=string
Container: name=string image=string command=[]string args=[]string workingDir=string ports=[]ContainerPort
  envFrom=[]EnvFromSource env=[]EnvVar resources=ResourceRequirements resizePolicy=[]ContainerResizePolicy
  restartPolicy=string restartPolicyRules=[]ContainerRestartRule volumeMounts=[]VolumeMount
  volumeDevices=[]VolumeDevice livenessProbe=Probe readinessProbe=Probe startupProbe=Probe lifecycle=Lifecycle
  terminationMessagePath=string terminationMessagePolicy=string imagePullPolicy=string
  securityContext=SecurityContext stdin=bool stdinOnce=bool tty=bool
Volume: name=string hostPath=HostPathVolumeSource emptyDir=EmptyDirVolumeSource
  gcePersistentDisk=GCEPersistentDiskVolumeSource awsElasticBlockStore=AWSElasticBlockStoreVolumeSource
  gitRepo=GitRepoVolumeSource secret=SecretVolumeSource nfs=NFSVolumeSource iscsi=ISCSIVolumeSource
  glusterfs=GlusterfsVolumeSource persistentVolumeClaim=PersistentVolumeClaimVolumeSource rbd=RBDVolumeSource
  flexVolume=FlexVolumeSource cinder=CinderVolumeSource cephfs=CephFSVolumeSource flocker=FlockerVolumeSource
  downwardAPI=DownwardAPIVolumeSource fc=FCVolumeSource azureFile=AzureFileVolumeSource
  configMap=ConfigMapVolumeSource vsphereVolume=VsphereVirtualDiskVolumeSource quobyte=QuobyteVolumeSource
  azureDisk=AzureDiskVolumeSource photonPersistentDisk=PhotonPersistentDiskVolumeSource
  projected=ProjectedVolumeSource portworxVolume=PortworxVolumeSource scaleIO=ScaleIOVolumeSource
  storageos=StorageOSVolumeSource csi=CSIVolumeSource ephemeral=EphemeralVolumeSource image=ImageVolumeSource
EphemeralVolumeSource: volumeClaimTemplate=PersistentVolumeClaimTemplate
PersistentVolumeClaimTemplate: metadata=ObjectMeta spec=PersistentVolumeClaimSpec
PersistentVolumeClaimSpec: accessModes=[]string selector=LabelSelector resources=VolumeResourceRequirements
  volumeName=string storageClassName=string volumeMode=string dataSource=TypedLocalObjectReference
  dataSourceRef=TypedObjectReference volumeAttributesClassName=string
TypedObjectReference: apiGroup=string kind=string name=string namespace=string
TypedLocalObjectReference: apiGroup=string kind=string name=string
CSIVolumeSource: driver=string readOnly=bool fsType=string volumeAttributes={}string
  nodePublishSecretRef=LocalObjectReference
StorageOSVolumeSource: volumeName=string volumeNamespace=string fsType=string readOnly=bool
  secretRef=LocalObjectReference
ScaleIOVolumeSource: gateway=string system=string secretRef=LocalObjectReference sslEnabled=bool
  protectionDomain=string storagePool=string storageMode=string volumeName=string fsType=string readOnly=bool
PortworxVolumeSource: volumeID=string fsType=string readOnly=bool
ProjectedVolumeSource: sources=[]VolumeProjection defaultMode=int32
VolumeProjection: secret=SecretProjection downwardAPI=DownwardAPIProjection configMap=ConfigMapProjection
  serviceAccountToken=ServiceAccountTokenProjection clusterTrustBundle=ClusterTrustBundleProjection
  podCertificate=PodCertificateProjection
ServiceAccountTokenProjection: audience=string expirationSeconds=int64 path=string
ConfigMapProjection: name=string items=[]KeyToPath optional=bool
KeyToPath: key=string path=string mode=int32
DownwardAPIProjection: items=[]DownwardAPIVolumeFile
DownwardAPIVolumeFile: path=string fieldRef=ObjectFieldSelector resourceFieldRef=ResourceFieldSelector mode=int32
SecretProjection: name=string items=[]KeyToPath optional=bool
PhotonPersistentDiskVolumeSource: pdID=string fsType=string
AzureDiskVolumeSource: diskName=string diskURI=string cachingMode=string fsType=string readOnly=bool kind=string
QuobyteVolumeSource: registry=string volume=string readOnly=bool user=string group=string tenant=string
VsphereVirtualDiskVolumeSource: volumePath=string fsType=string storagePolicyName=string storagePolicyID=string
ConfigMapVolumeSource: name=string items=[]KeyToPath defaultMode=int32 optional=bool
AzureFileVolumeSource: secretName=string shareName=string readOnly=bool
FCVolumeSource: targetWWNs=[]string lun=int32 fsType=string readOnly=bool wwids=[]string
DownwardAPIVolumeSource: items=[]DownwardAPIVolumeFile defaultMode=int32
FlockerVolumeSource: datasetName=string datasetUUID=string
CephFSVolumeSource: monitors=[]string path=string user=string secretFile=string secretRef=LocalObjectReference
  readOnly=bool
CinderVolumeSource: volumeID=string fsType=string readOnly=bool secretRef=LocalObjectReference
FlexVolumeSource: driver=string fsType=string secretRef=LocalObjectReference readOnly=bool options={}string
RBDVolumeSource: monitors=[]string image=string fsType=string pool=string user=string keyring=string
  secretRef=LocalObjectReference readOnly=bool
PersistentVolumeClaimVolumeSource: claimName=string readOnly=bool
GlusterfsVolumeSource: endpoints=string path=string readOnly=bool
ISCSIVolumeSource: targetPortal=string iqn=string lun=int32 iscsiInterface=string fsType=string readOnly=bool
  portals=[]string chapAuthDiscovery=bool chapAuthSession=bool secretRef=LocalObjectReference
  initiatorName=string
NFSVolumeSource: server=string path=string readOnly=bool
SecretVolumeSource: secretName=string items=[]KeyToPath defaultMode=int32 optional=bool
GitRepoVolumeSource: repository=string revision=string directory=string
AWSElasticBlockStoreVolumeSource: volumeID=string fsType=string partition=int32 readOnly=bool
GCEPersistentDiskVolumeSource: pdName=string fsType=string partition=int32 readOnly=bool
EmptyDirVolumeSource: medium=string sizeLimit=Quantity
HostPathVolumeSource: path=string type=string
ContainerResizePolicy: resourceName=string restartPolicy=string
SleepAction: seconds=int64
VolumeResourceRequirements: limits={}Quantity requests={}Quantity
ClusterTrustBundleProjection: name=string signerName=string labelSelector=LabelSelector optional=bool path=string
AppArmorProfile: type=string localhostProfile=string
ImageVolumeSource: reference=string pullPolicy=string
ContainerRestartRule: action=string exitCodes=ContainerRestartRuleOnExitCodes
ContainerRestartRuleOnExitCodes: operator=string values=[]int32
FileKeySelector: volumeName=string path=string key=string optional=bool
PodCertificateProjection: signerName=string keyType=string maxExpirationSeconds=int32 credentialBundlePath=string
  keyPath=string certificateChainPath=string userAnnotations={}string
WorkloadReference: name=string podGroup=string podGroupReplicaKey=string
PodSchedulingGroup: podGroupName=string
"""
