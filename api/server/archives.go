package server

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"time"

	wire "github.com/moby/moby/api/types/container"

	"davit/engine"
	"davit/oci/errdefs"
)

// statHeader carries a path's description beside its archive.
const statHeader = "X-Docker-Container-Path-Stat"

func setStat(w http.ResponseWriter, stat wire.PathStat) error {
	b, err := json.Marshal(stat)
	if err != nil {
		return err
	}
	w.Header().Set(statHeader, base64.StdEncoding.EncodeToString(b))
	return nil
}

func (s *Server) statArchive(w http.ResponseWriter, r *request) error {
	stat, err := s.Engine.Archives.Stat(r.Context(), r.vars["id"], r.query("path"))
	if err != nil {
		return err
	}
	return setStat(w, stat)
}

func (s *Server) getArchive(w http.ResponseWriter, r *request) error {
	stat, archive, err := s.Engine.Archives.Get(r.Context(), r.vars["id"], r.query("path"))
	if err != nil {
		return err
	}
	defer archive.Close()
	if err := setStat(w, stat); err != nil {
		return err
	}
	return s.sendTar(w, archive)
}

// sendTar streams an archive. An error on the way can only end the connection.
func (s *Server) sendTar(w http.ResponseWriter, archive io.Reader) error {
	w.Header().Set("Content-Type", "application/x-tar")
	if _, err := io.Copy(w, archive); err != nil {
		s.Log.Warn("send archive", "error", err)
		panic(http.ErrAbortHandler)
	}
	return nil
}

func (s *Server) putArchive(w http.ResponseWriter, r *request) error {
	if r.query("path") == "" {
		return errdefs.Invalid("bad parameter: path cannot be empty")
	}
	return s.Engine.Archives.Put(r.Context(), r.vars["id"], r.query("path"), r.Body, engine.PutOptions{
		NoOverwrite: r.flag("noOverwriteDirNonDir"), CopyOwner: r.flag("copyUIDGID"),
	})
}

func (s *Server) export(w http.ResponseWriter, r *request) error {
	archive, err := s.Engine.Archives.Export(r.Context(), r.vars["id"])
	if err != nil {
		return err
	}
	defer archive.Close()
	return s.sendTar(w, archive)
}

// statsInterval is the time between two readings of a stream.
const statsInterval = time.Second

// stats streams readings, each with the one before it, from which clients compute rates. Without
// stream there is one answer: of two readings a second apart, or with one-shot of one.
func (s *Server) stats(w http.ResponseWriter, r *request) error {
	read, err := s.Engine.Views.Stats(r.vars["id"])
	if err != nil {
		return err
	}
	stream, oneShot := r.flagOr("stream", true), r.flag("one-shot")
	if stream && oneShot {
		return errdefs.Invalid("cannot have stream=true and one-shot=true")
	}
	w.Header().Set("Content-Type", "application/json")
	out := json.NewEncoder(w)
	ticker := time.NewTicker(statsInterval)
	defer ticker.Stop()
	var before wire.StatsResponse
	for n := 0; ; n++ {
		now, err := read()
		if err != nil {
			if n == 0 {
				return err
			}
			return nil
		}
		now.PreRead, now.PreCPUStats = before.Read, before.CPUStats
		before = now
		if stream || oneShot || n > 0 || now.MemoryStats.Limit == 0 {
			if err := out.Encode(now); err != nil || !stream {
				return nil
			}
			flush(w)
		}
		select {
		case <-r.Context().Done():
			return nil
		case <-ticker.C:
		}
	}
}
