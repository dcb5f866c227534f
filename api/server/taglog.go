package server

import (
	"net/http"
	"time"

	"davit/image"
	"davit/oci"
)

// tagMove is one entry of the answer to GET /davit/images/<name>/history; number n of them is what
// clients write as "<name>@{n}".
type tagMove struct {
	ID     oci.Digest  `json:"id,omitempty"`     // empty: the tag was removed
	Digest oci.Digest  `json:"digest,omitempty"` // of the manifest or index
	Time   time.Time   `json:"time,omitzero"`
	By     image.Cause `json:"by"`
	Pulled string      `json:"pulled,omitempty"` // what it can be pulled by again
	Here   bool        `json:"here"`             // the image is here
}

// tagHistory is that answer: a tag's log, the latest move first.
type tagHistory struct {
	Tag     string    `json:"tag"`
	History []tagMove `json:"history"`
}

func (s *Server) tagLog(w http.ResponseWriter, r *request) error {
	tag, moves, err := s.Engine.Images.TagLog(r.Context(), r.vars["name"])
	if err != nil {
		return err
	}
	answer := tagHistory{Tag: tag.Familiar(), History: []tagMove{}}
	for _, m := range moves {
		answer.History = append(answer.History, tagMove{m.ID, m.Target.Digest, m.Time, m.By, m.Pulled, m.Here})
	}
	return writeJSON(w, http.StatusOK, answer)
}

// rolledBack is the answer to POST /davit/images/<name>/rollback.
type rolledBack struct {
	Tag string     `json:"tag"`
	ID  oci.Digest `json:"id"` // the image that the tag names now
}

func (s *Server) rollbackTag(w http.ResponseWriter, r *request) error {
	tag, to, err := s.Engine.Images.Rollback(r.Context(), r.vars["name"])
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, rolledBack{tag.Familiar(), to.ID})
}
