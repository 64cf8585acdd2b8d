package meta

import (
	"encoding/json"
	"math"
	"strings"
)

// What operators set beside the records that have operations of their own is
// kept as settings, which members of every level can read: the limits of a vhost
// or user, and global parameters, each as the JSON text of its value.
const (
	vhostLimitsPrefix      = "vhost-limits:"
	userLimitsPrefix       = "user-limits:"
	globalParameterPrefix  = "global-parameter:"
	maxConnections         = "max-connections"
	maxQueues, maxChannels = "max-queues", "max-channels"
)

// VHostLimits names the limits of a vhost.
func VHostLimits(vhost string) string { return vhostLimitsPrefix + vhost }

// UserLimits names the limits of a user.
func UserLimits(user string) string { return userLimitsPrefix + user }

// GlobalParameter names a global parameter.
func GlobalParameter(name string) string { return globalParameterPrefix + name }

// IsLimits reports whether a setting is the limits of a vhost or user.
func IsLimits(setting string) bool {
	return strings.HasPrefix(setting, vhostLimitsPrefix) || strings.HasPrefix(setting, userLimitsPrefix)
}

// GlobalParameterName is the name of the global parameter that a setting is, if
// it is one.
func GlobalParameterName(setting string) (name string, ok bool) {
	return strings.CutPrefix(setting, globalParameterPrefix)
}

// clusterName is the global parameter that is the cluster's name, as in RabbitMQ.
const clusterName = "cluster_name"

// ClusterNameBytesMax is how long the name of a cluster may be: it has to fit
// into the first frame that a client is sent.
const ClusterNameBytesMax = 128

// SetClusterName names the cluster.
func SetClusterName(name string) (SettingPut, error) {
	b, err := json.Marshal(name)
	return SettingPut{Name: GlobalParameter(clusterName), Value: string(b)}, err
}

// ClusterName is the name that the cluster was given; false if it was given
// none, or one that cannot be: a global parameter may have any value.
func (v *View) ClusterName() (string, bool) {
	s, _ := v.Setting(GlobalParameter(clusterName))
	var name string
	if err := json.Unmarshal([]byte(s), &name); err != nil {
		return "", false
	}
	return name, name != "" && len(name) <= ClusterNameBytesMax
}

// VHostConnections is how many connections a vhost may have; false if any number.
func (v *View) VHostConnections(vhost string) (int64, bool) {
	return v.limit(VHostLimits(vhost), maxConnections)
}

// VHostQueues is how many queues a vhost may have; false if any number.
func (v *View) VHostQueues(vhost string) (int64, bool) {
	return v.limit(VHostLimits(vhost), maxQueues)
}

// UserConnections is how many connections a user may have; false if any number.
func (v *View) UserConnections(user string) (int64, bool) {
	return v.limit(UserLimits(user), maxConnections)
}

// UserChannels is how many channels a user may have; false if any number.
func (v *View) UserChannels(user string) (int64, bool) {
	return v.limit(UserLimits(user), maxChannels)
}

func (v *View) limit(setting, what string) (int64, bool) {
	s, ok := v.Setting(setting)
	if !ok {
		return 0, false
	}
	var all map[string]float64
	if err := json.Unmarshal([]byte(s), &all); err != nil {
		return 0, false // whoever set it has checked it
	}
	n, ok := all[what]
	return int64(min(n, math.MaxInt32)), ok && n >= 0
}
