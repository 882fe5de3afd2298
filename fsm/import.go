package fsm

import "strings"

// maxImportKey bounds the id of an import key in bytes: a node's name, a slash and a UUID.
const maxImportKey = 128

// importKey makes a key of material that was made elsewhere. Whoever made it may still have it, so the first version says for ever that it was
// imported; a rotation makes versions that no one else has.
func (x *execution) importKey(c ImportKey) error {
	if err := validImportKey(c.ImportKey); err != nil {
		return err
	}
	return x.makeKey(c.Key, &c)
}

// validImportKey: the log shows the id, so it is a name of two parts and nothing that could be taken for another field.
func validImportKey(id string) error {
	node, of, ok := strings.Cut(id, "/")
	if len(id) > maxImportKey || !ok || ValidNodeID(node) != nil {
		return invalid("the import key %q is not NODE/UUID", clip(id))
	}
	return validUUID("import key id", of)
}
