package main

import (
	"bytes"
	"image/color"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// picture is a plot: curves, or bars that are stacked.
type picture struct {
	name, title string
	x, y        string
	logX, logY  bool
	curves      []curve
	bars        []string // what stands below each bar
	layers      []layer
}

type curve struct {
	name   string
	points plotter.XYs
}

// layer is a part of each bar.
type layer struct {
	name   string
	values plotter.Values
}

func (p *picture) file() string { return "performance-" + p.name + ".svg" }

// The colours tell apart for those who see few colours too.
func colours() []color.Color {
	return []color.Color{
		color.RGBA{0, 114, 178, 255},
		color.RGBA{213, 94, 0, 255},
		color.RGBA{0, 158, 115, 255},
		color.RGBA{204, 121, 167, 255},
		color.RGBA{230, 159, 0, 255},
		color.RGBA{86, 180, 233, 255},
		color.RGBA{240, 228, 66, 255},
		color.RGBA{120, 120, 120, 255},
		color.RGBA{60, 60, 60, 255},
		color.RGBA{190, 190, 190, 255},
		color.RGBA{0, 60, 90, 255},
		color.RGBA{120, 60, 0, 255},
	}
}

func (p *picture) svg() ([]byte, error) {
	drawn := plot.New()
	drawn.Title.Text, drawn.X.Label.Text, drawn.Y.Label.Text = p.title, p.x, p.y
	drawn.BackgroundColor = color.White
	drawn.Add(plotter.NewGrid())
	drawn.Legend.Padding = vg.Points(2)
	height := 11 * vg.Centimeter
	if p.bars == nil {
		if err := p.addCurves(drawn); err != nil {
			return nil, err
		}
	} else {
		height = 15 * vg.Centimeter
		if err := p.addBars(drawn); err != nil {
			return nil, err
		}
	}
	canvas := vgsvg.New(20*vg.Centimeter, height)
	drawn.Draw(draw.Crop(draw.New(canvas), vg.Points(4), -vg.Points(14), vg.Points(4), -vg.Points(4)))
	var svg bytes.Buffer
	_, err := canvas.WriteTo(&svg)
	return svg.Bytes(), err
}

func (p *picture) addCurves(drawn *plot.Plot) error {
	for i, c := range p.curves {
		line, points, err := plotter.NewLinePoints(c.points)
		if err != nil {
			return err
		}
		line.Color, line.Width = colours()[i], vg.Points(1.5)
		points.Color, points.Shape = colours()[i], draw.CircleGlyph{}
		drawn.Add(line, points)
		drawn.Legend.Add(c.name, line, points)
	}
	if p.logX {
		drawn.X.Scale, drawn.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	}
	drawn.Legend.Top, drawn.Legend.Left, drawn.Legend.XOffs = true, true, vg.Points(8)
	if p.logY {
		drawn.Y.Scale, drawn.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
		drawn.Y.Max *= 20 // room for the names
		return nil
	}
	drawn.Y.Min, drawn.Y.Max = 0, drawn.Y.Max*1.4
	return nil
}

// inLines breaks a name where a bar ends.
func inLines(name string) string {
	const most = 16
	var b strings.Builder
	length := 0
	for i, word := range strings.Fields(strings.ReplaceAll(name, "`", "")) {
		switch {
		case i == 0:
		case length+1+len(word) > most:
			b.WriteByte('\n')
			length = 0
		default:
			b.WriteByte(' ')
			length++
		}
		b.WriteString(word)
		length += len(word)
	}
	return b.String()
}

func (p *picture) addBars(drawn *plot.Plot) error {
	var below *plotter.BarChart
	var named []func()
	// The first one is on top, as its name is.
	for i, l := range slices.Backward(p.layers) {
		bars, err := plotter.NewBarChart(l.values, vg.Points(48))
		if err != nil {
			return err
		}
		bars.Color, bars.LineStyle.Width = colours()[i%len(colours())], vg.Points(.25)
		if below != nil {
			bars.StackOn(below)
		}
		below = bars
		drawn.Add(bars)
		named = append(named, func() { drawn.Legend.Add(l.name, bars) })
	}
	var names []string
	for _, name := range p.bars {
		names = append(names, inLines(name))
	}
	drawn.NominalX(names...)
	if len(p.layers) > 1 {
		for _, add := range slices.Backward(named) {
			add()
		}
		drawn.X.Max = float64(len(p.bars)) + .9 // room for the names
		drawn.Legend.Top = true
	}
	drawn.Y.Min, drawn.Y.Max = 0, drawn.Y.Max*1.05
	return nil
}
