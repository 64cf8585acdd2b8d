package main

import (
	"fmt"
	"io"
	"os"

	"warren/management"
)

// definitionsBytesMax is how large a definitions file may be.
const definitionsBytesMax = 12 << 20

// standard stands for the standard input or output in the place of a file.
const standard = "-"

func exporting(c *ctlCall) string {
	if c.args[0] == standard {
		return "Exporting definitions in JSON to standard output ..."
	}
	return fmt.Sprintf("Exporting definitions in JSON to a file at \"%s\" ...", c.args[0])
}

func importing(c *ctlCall) string {
	if len(c.args) == 0 || c.args[0] == standard {
		return "Importing definitions in JSON from standard input ..."
	}
	return fmt.Sprintf("Importing definitions in JSON from a file at \"%s\" ...", c.args[0])
}

// ctlExport writes the cluster's definitions to a file. It has the hashes of
// passwords: it is for its owner alone.
func ctlExport(c *ctlCall) error {
	path := c.args[0]
	c.args = nil
	reply, err := c.command()
	if err != nil {
		return err
	}
	text := reply.Message + "\n"
	if path == standard {
		_, err = io.WriteString(c.out, text)
		return err
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return fail(management.ExitData, "write %s: %v", path, err)
	}
	return nil
}

// ctlImport has a node make what a definitions file has.
func ctlImport(c *ctlCall) error {
	from := c.in
	if len(c.args) > 0 && c.args[0] != standard {
		f, err := os.Open(c.args[0])
		if err != nil {
			return fail(management.ExitData, "File %s does not exist or cannot be read: %v", c.args[0], err)
		}
		defer f.Close()
		from = f
	}
	b, err := io.ReadAll(io.LimitReader(from, definitionsBytesMax+1))
	if err != nil {
		return fail(management.ExitData, "read definitions: %v", err)
	}
	if len(b) > definitionsBytesMax {
		return fail(management.ExitData, "the definitions have more than %d bytes", definitionsBytesMax)
	}
	c.args = []string{string(b)}
	_, err = c.command()
	return err
}

// ctlHashPassword prints a password as definitions files have it. No node is
// asked.
func ctlHashPassword(c *ctlCall) error {
	if len(c.args) == 0 {
		if err := c.readPassword(); err != nil {
			return err
		}
	}
	hashed, err := management.HashPassword(c.args[0])
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.out, hashed)
	return err
}
