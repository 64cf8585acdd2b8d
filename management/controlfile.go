package management

// ControlFileName is the file in a node's data directory by which commands on
// the same machine find the node, and show that they may read that directory.
const ControlFileName = "control.json"

// ControlFile is what is in it.
type ControlFile struct {
	Node   string `json:"node"`   // its name
	URL    string `json:"url"`    // of its HTTP side
	Secret string `json:"secret"` // for Authorization: Bearer; new in every run of the node
}
