package management

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"warren/fsm/meta"
	"warren/mq"
)

// Definitions are what a cluster is made of, but its messages, in the form of
// RabbitMQ's definition files, so that these move both ways.
type Definitions struct {
	RabbitMQ    string `json:"rabbitmq_version,omitempty"`
	Product     string `json:"product_name,omitempty"`
	Version     string `json:"product_version,omitempty"`
	Format      string `json:"rabbitmq_definition_format,omitempty"`
	ClusterName string `json:"original_cluster_name,omitempty"`

	Users            []userDefinition            `json:"users"`
	VHosts           []vhostDefinition           `json:"vhosts"`
	Permissions      []permissionDefinition      `json:"permissions"`
	TopicPermissions []topicPermissionDefinition `json:"topic_permissions"`
	Parameters       []parameterDefinition       `json:"parameters"`
	GlobalParameters []globalDefinition          `json:"global_parameters"`
	Policies         []policyDefinition          `json:"policies"`
	Queues           []queueDefinition           `json:"queues"`
	Exchanges        []exchangeDefinition        `json:"exchanges"`
	Bindings         []bindingDefinition         `json:"bindings"`
}

type userDefinition struct {
	Name         string          `json:"name"`
	PasswordHash string          `json:"password_hash"`
	Algorithm    string          `json:"hashing_algorithm"`
	Tags         tags            `json:"tags"`
	Limits       json.RawMessage `json:"limits,omitempty"`
}

// tags are a list, or in older files a text with commas.
type tags []string

// UnmarshalJSON reads both.
func (t *tags) UnmarshalJSON(b []byte) error {
	var text string
	if json.Unmarshal(b, &text) == nil {
		*t = commas(text)
		return nil
	}
	return json.Unmarshal(b, (*[]string)(t))
}

type vhostDefinition struct {
	Name             string `json:"name"`
	Description      string `json:"description,omitempty"`
	Tags             tags   `json:"tags,omitempty"`
	DefaultQueueType string `json:"default_queue_type,omitempty"`
}

type permissionDefinition struct {
	User      string `json:"user"`
	VHost     string `json:"vhost"`
	Configure string `json:"configure"`
	Write     string `json:"write"`
	Read      string `json:"read"`
}

type topicPermissionDefinition struct {
	User     string `json:"user"`
	VHost    string `json:"vhost"`
	Exchange string `json:"exchange"`
	Write    string `json:"write"`
	Read     string `json:"read"`
}

type parameterDefinition struct {
	VHost     string          `json:"vhost"`
	Component string          `json:"component"`
	Name      string          `json:"name"`
	Value     json.RawMessage `json:"value"`
}

type globalDefinition struct {
	Name  string          `json:"name"`
	Value json.RawMessage `json:"value"`
}

type policyDefinition struct {
	VHost      string          `json:"vhost,omitempty"`
	Name       string          `json:"name,omitempty"`
	Pattern    string          `json:"pattern"`
	ApplyTo    string          `json:"apply-to"`
	Definition json.RawMessage `json:"definition"`
	Priority   int64           `json:"priority"`
}

type queueDefinition struct {
	Name       string          `json:"name"`
	VHost      string          `json:"vhost"`
	Durable    bool            `json:"durable"`
	AutoDelete bool            `json:"auto_delete"`
	Arguments  json.RawMessage `json:"arguments"`
}

type exchangeDefinition struct {
	Name       string          `json:"name"`
	VHost      string          `json:"vhost"`
	Type       string          `json:"type"`
	Durable    bool            `json:"durable"`
	AutoDelete bool            `json:"auto_delete"`
	Internal   bool            `json:"internal"`
	Arguments  json.RawMessage `json:"arguments"`
}

type bindingDefinition struct {
	Source          string          `json:"source"`
	VHost           string          `json:"vhost"`
	Destination     string          `json:"destination"`
	DestinationType string          `json:"destination_type"`
	Key             string          `json:"routing_key"`
	Arguments       json.RawMessage `json:"arguments"`
}

// operatorPolicies is the component under which files have operator policies.
const operatorPolicies = "operator_policy"

// Define reads the definitions out of a View: all that outlives its clients.
func Define(v *meta.View) (d Definitions) {
	d.Users, d.VHosts, d.Permissions = []userDefinition{}, []vhostDefinition{}, []permissionDefinition{}
	d.TopicPermissions, d.Parameters, d.GlobalParameters = []topicPermissionDefinition{}, []parameterDefinition{}, []globalDefinition{}
	d.Policies, d.Queues, d.Exchanges, d.Bindings = []policyDefinition{}, []queueDefinition{}, []exchangeDefinition{}, []bindingDefinition{}
	for u := range v.Users() {
		x := userDefinition{Name: u.Name, PasswordHash: u.PasswordHash, Algorithm: u.Algorithm, Tags: listed(u.Tags), Limits: json.RawMessage("{}")}
		if x.Algorithm == "" {
			x.Algorithm = meta.HashSHA256
		}
		if text, ok := v.Setting(meta.UserLimits(u.Name)); ok {
			x.Limits = json.RawMessage(text)
		}
		d.Users = append(d.Users, x)
	}
	for p := range v.Permissions() {
		d.Permissions = append(d.Permissions, permissionDefinition(*p))
	}
	for p := range v.TopicPermissions() {
		d.TopicPermissions = append(d.TopicPermissions, topicPermissionDefinition(*p))
	}
	for s := range v.Settings() {
		if name, ok := meta.GlobalParameterName(s.Name); ok {
			d.GlobalParameters = append(d.GlobalParameters, globalDefinition{name, json.RawMessage(s.Value)})
		}
	}
	for h := range v.VHosts() {
		d.VHosts = append(d.VHosts, vhostDefinition{h.Name, h.Description, h.Tags, h.DefaultQueueType})
		d.addVHost(v, h.Name)
	}
	return d
}

// addVHost adds what is in a vhost.
func (d *Definitions) addVHost(v *meta.View, vhost string) {
	if text, ok := v.Setting(meta.VHostLimits(vhost)); ok {
		d.Parameters = append(d.Parameters, parameterDefinition{vhost, limitsComponent, limitsName, json.RawMessage(text)})
	}
	for p := range v.OperatorPolicies(vhost) {
		x := policyDefinition{Pattern: p.Pattern, ApplyTo: p.ApplyTo, Definition: Properties(p.Definition), Priority: p.Priority}
		if b, err := json.Marshal(x); err == nil { // it is made of what JSON has
			d.Parameters = append(d.Parameters, parameterDefinition{vhost, operatorPolicies, p.Name, b})
		}
	}
	for p := range v.Policies(vhost) {
		d.Policies = append(d.Policies, policyDefinition{vhost, p.Name, p.Pattern, p.ApplyTo, Properties(p.Definition), p.Priority})
	}
	for q := range v.EachQueue(vhost) {
		if q.Durable { // others end with a connection or a node
			d.Queues = append(d.Queues, queueDefinition{q.Name, vhost, true, q.AutoDelete, Properties(q.Args)})
		}
	}
	for x := range v.EachExchange(vhost) {
		if x.Name != "" && !strings.HasPrefix(x.Name, "amq.") {
			d.Exchanges = append(d.Exchanges, exchangeDefinition{x.Name, vhost, x.Type, x.Durable, x.AutoDelete, x.Internal, Properties(x.Args)})
		}
	}
	for b := range v.EachBinding(vhost) {
		kind := "exchange"
		if !b.ToExchange {
			kind = "queue"
			if q := v.Queue(vhost, b.Destination); q == nil || !q.Durable {
				continue
			}
		}
		d.Bindings = append(d.Bindings, bindingDefinition{b.Source, vhost, b.Destination, kind, b.Key, Properties(b.Args)})
	}
}

// ParseDefinitions reads a definitions file. Keys that it does not know it
// leaves alone: files of other versions have more.
func ParseDefinitions(b []byte) (d Definitions, err error) {
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	return d, json.Unmarshal(b, &d)
}

// table reads arguments, which are an object, or nothing; empty lists stand for
// empty objects in files that Erlang wrote.
func table(b json.RawMessage) (mq.Table, error) {
	switch string(bytes.TrimSpace(b)) {
	case "", "null", "[]":
		return nil, nil
	}
	return Definition(b)
}

// policy is a policy as the metadata has it.
func (p *policyDefinition) policy(operator bool) (meta.PolicySet, error) {
	definition, err := Definition(p.Definition)
	if err != nil {
		return meta.PolicySet{}, err
	}
	to := p.ApplyTo
	if to == "" {
		to = meta.ApplyToAll
	}
	return meta.PolicySet{Policy: meta.Policy{
		VHost: p.VHost, Name: p.Name, Operator: operator, Pattern: p.Pattern, ApplyTo: to, Priority: p.Priority, Definition: definition,
	}}, nil
}

// parameter is the change that a parameter of a file stands for.
func (p *parameterDefinition) change() (meta.Op, error) {
	switch p.Component {
	case limitsComponent:
		limits, err := parseLimits(string(p.Value), vhostLimitNames())
		if err != nil {
			return nil, err
		}
		return putLimits(meta.VHostLimits(p.VHost), limits)
	case operatorPolicies:
		var x policyDefinition
		if err := json.Unmarshal(p.Value, &x); err != nil {
			return nil, err
		}
		x.VHost, x.Name = p.VHost, p.Name
		return x.policy(true)
	}
	return nil, fmt.Errorf("component %s not found", p.Component)
}
